"""What Hydra calls before a multirun."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fcnlab import command
from fcnlab.core.errors import FcnlabError
from fcnlab.sweeps import sweep


class Hook(Callback):
    """Begins the sweep that the command line asked for, before its first trial.

    Hydra turns what a callback raises into warnings, so a sweep that cannot begin ends the process itself.
    ``fcnlab.train`` ends the sweep, since it also notices an interruption.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the parent run."""
        if sweep.current is None:
            return
        try:
            sweep.current.begin(config)
        except FcnlabError as error:
            command.leave(command.EXIT_ERROR, str(error))
        except Exception:  # a bug, whose traceback Hydra would hide
            traceback.print_exc()
            sys.exit(command.EXIT_ERROR)
