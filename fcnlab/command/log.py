"""Says where the log lines of a command go: above its progress bar, and to the log file of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich import get_console


class ConsoleHandler(logging.Handler):
    """Writes log lines through the console that draws the progress bar, so that the lines stay above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def visible_log() -> Iterator[None]:
    """Print the log lines of this package within the block where nobody has said what becomes of them.

    That is so in a notebook and in a script, which would otherwise say nothing while a network trains.
    """
    logger = logging.getLogger("fcnlab")
    if logger.hasHandlers():
        yield
        return
    handler, level = ConsoleHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class LogFile(logging.FileHandler):
    """The log file of a run; a line that the disk refuses is lost without a word, as the journal's error reports it.

    Args:
        filename: The path of the file, which is opened at the first line.
    """

    def __init__(self, filename: str) -> None:
        super().__init__(filename, encoding="utf-8", delay=True)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # an error while opening; one while writing goes to `handleError`
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
