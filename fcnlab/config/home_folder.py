"""Paths of Hydra's own in the home folder, which configuration files state with ``~``."""

from __future__ import annotations

import os
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from fcnlab.config.composition import override


class HomeFolder(Callback):
    """Takes ``~`` at the beginning of an output folder for the home folder, before Hydra makes the folder.

    On the command line, `fcnlab.config.with_home` has done so. In a file such as ``experiment/mine.yaml``, Hydra takes
    ``hydra.run.dir: ~/runs`` for a folder called ``~``.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Expand the output folder of a single training."""
        _expand(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Expand the folder of a sweep, also for its jobs, which compose their configurations anew."""
        if _expand(config, "hydra.sweep.dir"):
            with read_write(config.hydra):
                config.hydra.overrides.hydra.append(override("hydra.sweep.dir", config.hydra.sweep.dir))


def _expand(config: DictConfig, key: str) -> bool:
    """Replace ``~`` at the beginning of a path by the home folder, and return whether it was there."""
    given = str(OmegaConf.select(config, key))
    if given != "~" and not given.startswith("~/"):
        return False
    with read_write(config.hydra):
        OmegaConf.update(config, key, os.path.expanduser(given))
    return True
