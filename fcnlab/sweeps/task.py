"""The task of a trial's process, and its way there through a pipe."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fcnlab.config import Config
from fcnlab.sweeps.result import TrialResult

_SIZE_BYTES = 8


@dataclass(frozen=True)
class Task:
    """What the process of a trial is to do.

    Attributes:
        config: The configuration to train, which holds the sweep's id and the number of the search's trial.
        folder: The output folder.
        overrides: The overrides that Hydra composed the configuration with.
        command_line: The sweep's command line, for the run's tags.
        logging: The settings for ``logging.config``.
        alone: Whether no other trial writes to the terminal meanwhile.
        sweep: The sweep's folder.
        result: The trial's result so far, which the process completes.
    """

    config: Config
    folder: Path
    overrides: list[str]
    command_line: list[str]
    logging: dict[str, Any]
    alone: bool
    sweep: Path
    result: TrialResult

    def send(self, pipe: IO[bytes]) -> None:
        """Write the task into a pipe, which stays open.

        Raises:
            BrokenPipeError: If nobody reads it.
        """
        message = pickle.dumps(self)
        pipe.write(len(message).to_bytes(_SIZE_BYTES, "little") + message)
        pipe.flush()

    @staticmethod
    def receive(descriptor: int) -> Task:
        """Read a task from the other end of the pipe.

        Raises:
            EOFError: If the pipe was closed before the whole task was written.
        """
        return pickle.loads(_read(descriptor, int.from_bytes(_read(descriptor, _SIZE_BYTES), "little")))


def _read(descriptor: int, size: int) -> bytes:
    """Read past Python's file object, which no thread may hold when the interpreter ends."""
    data = b""
    while len(data) < size:
        part = os.read(descriptor, size - len(data))
        if not part:
            raise EOFError("the pipe was closed within a task")
        data += part
    return data
