"""Runs every command alike: with its log lines, one-line errors, exit codes and signals."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich import get_console

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.core import interrupts, launch, memory, output, workers
from fcnlab.core.errors import FcnlabError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT

_SECONDS_FOR_FIRST = 5.0
"""How long another worker leaves worker 0 to say why neither can begin, before `msrun` ends that one."""


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


def run(command: Callable[[], object], schema: type = Config) -> NoReturn:
    """Run a Hydra command and leave with its exit code.

    An error that the user can mend goes to standard error as one line, and the exit code is 1. Ctrl-C exits with 130,
    SIGTERM with 143 and SIGHUP with 129. Any other error is a bug and shows its traceback.

    Args:
        command: The command, which reads the command line by itself.
        schema: The class of the command's configuration.
    """
    interrupts.install()  # before the modules of plug-ins, which may start threads
    sys.argv[1:] = configuration.with_home(sys.argv[1:])
    configuration.register_schemas()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise Hydra prints many lines and exits
    output.outlive_reader()
    try:
        command()
    except FcnlabError as error:
        leave(EXIT_ERROR, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        leave(EXIT_ERROR, configuration.one_line(error, schema))
    except OSError as error:
        leave(EXIT_ERROR, _machine_trouble(error, trains=schema is Config))
    except Exception as error:
        leave_if_out_of_memory(error, trains=schema is Config)
        raise
    except interrupts.Terminated as end:
        leave(128 + end.number, _end("terminated" if end.number == signal.SIGTERM else "the terminal was closed", end))
    except KeyboardInterrupt as end:
        leave(EXIT_INTERRUPTED, _end("interrupted", end))
    sys.exit(0)


def _end(what: str, end: KeyboardInterrupt) -> str:
    """Add to the name of a signal what the command says of where it was, and of how to go on."""
    return f"{what} {end}".rstrip()


OUT_OF_MEMORY = (
    "out of memory: free some and go on with resume=..., or lower trainer.batch_size, dataset.crop_size or arch.width "
    "in a new training"
)
_OUT_OF_MEMORY_ELSEWHERE = "out of memory: lower tile"


def leave_if_out_of_memory(error: BaseException, trains: bool = True) -> None:
    """Exit with one line if an error says that memory has run out; otherwise, nothing happens.

    Args:
        error: An error of any library.
        trains: Whether the command trains.
    """
    if not memory.has_run_out(error):
        return
    left = memory.address_space_left()
    limit = "" if left is None else f" (ulimit -v leaves {max(left, 0) / 2**20:.0f} MiB)"
    leave(EXIT_ERROR, (OUT_OF_MEMORY if trains else _OUT_OF_MEMORY_ELSEWHERE).replace(":", f"{limit}:", 1))


def _machine_trouble(error: OSError, trains: bool) -> str:
    leave_if_out_of_memory(error, trains)
    reason = f"{error.filename or 'I/O'}: {error.strerror or error}"
    return f"{reason}; hydra.run.dir=... sets the output folder" if trains else reason


def word(key: str, value: str) -> str:
    """Return a command-line word that sets a key, quoted for the shell and for Hydra where either needs it."""
    plain = re.fullmatch(r"[\w./-]+", value, re.ASCII) is not None
    return f"{key}={value}" if plain else shlex.quote(configuration.override(key, value))


def leave(code: int, reason: str) -> NoReturn:
    """Print the reason as one line on standard error, and exit.

    Of several workers, the first one speaks: the others have the same reason, or have reported theirs to it.
    """
    started = launch.current()
    if started is None or not started.rank:  # a rank that is not known may be any, and then all say it
        print(f"fcnlab: {reason}", file=sys.stderr)
    elif code == EXIT_ERROR and workers.current() is workers.ALONE:  # they have not met, so that neither knows more
        interrupts.take_no_more()
        time.sleep(_SECONDS_FOR_FIRST)
    workers.current().ends_with(code)
    sys.exit(code)
