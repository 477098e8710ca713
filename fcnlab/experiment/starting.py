"""Starts the workers of a training on this machine, as ``trainer.workers`` says."""

from __future__ import annotations

import logging
import logging.config
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.core import launch, msrun, workers
from fcnlab.core.files import shortest
from fcnlab.core.processor import usable_processors
from fcnlab.experiment.run import start_sending_process, train

log = logging.getLogger(__name__)

FOLDER = "workers"
"""The folder within a training's output folder for the log files of ``msrun`` and its workers."""

_MODULE = "fcnlab.experiment.worker"


def is_needed(config: Config) -> bool:
    """Return whether this process is to start the workers of a training rather than to train."""
    return workers.must_start(config.trainer.workers, launch.current())


def is_first() -> bool:
    """Return whether this process is worker 0, or trains alone."""
    started = launch.current()
    return started is None or started.rank == 0


def start(config: Config, folder: Path, work: Callable[[], object]) -> msrun.End:
    """Start the workers of a training, and wait until they have ended.

    Args:
        config: The configuration.
        folder: The output folder, where their log files go, too.
        work: What each of them does; it is pickled.

    Returns:
        How they have ended. Worker 0 prints as this process would, and says why it ends early.

    Raises:
        ConfigError: If the configuration is wrong, or no workers can be started here.
        OSError: If their log files cannot be written.
    """
    configuration.validate(config)
    count = config.trainer.workers
    if count > (processors := usable_processors()):
        log.warning(
            "trainer.workers=%d: this process may use %d processor%s, so that the workers wait for one another",
            *(count, processors, "" if processors == 1 else "s"),
        )
    logs = folder / FOLDER
    log.info("starting %d worker%s, whose log files are in %s", count, "" if count == 1 else "s", shortest(logs))
    return msrun.run(count, _MODULE, pickle.dumps(work), logs.absolute())


@dataclass(frozen=True)
class SingleTraining:
    """What the workers of a single training do.

    Attributes:
        config: The configuration to train.
        folder: The output folder.
        overrides: The overrides that Hydra composed the configuration with.
        command_line: The words of the command line, for the run's tags.
        logging: The settings for ``logging.config``.
    """

    config: Config
    folder: Path
    overrides: list[str]
    command_line: list[str]
    logging: dict[str, Any]

    def __call__(self) -> None:
        """Train as one of the workers."""
        sys.argv[1:] = self.command_line
        if is_first():
            logging.config.dictConfig(self.logging)
        start_sending_process(self.config)
        train(self.config, self.folder, self.overrides)
