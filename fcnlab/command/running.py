"""Runs every command alike: with one-line errors, exit codes and signals."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fcnlab import config as configuration
from fcnlab.command.leaving import EXIT_ERROR, EXIT_INTERRUPTED, leave, leave_if_out_of_memory
from fcnlab.config import Config
from fcnlab.core import interrupts, output
from fcnlab.core.errors import FcnlabError


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


def _machine_trouble(error: OSError, trains: bool) -> str:
    leave_if_out_of_memory(error, trains)
    reason = f"{error.filename or 'I/O'}: {error.strerror or error}"
    return f"{reason}; hydra.run.dir=... sets the output folder" if trains else reason


def word(key: str, value: str) -> str:
    """Return a command-line word that sets a key, quoted for the shell and for Hydra where either needs it."""
    plain = re.fullmatch(r"[\w./-]+", value, re.ASCII) is not None
    return f"{key}={value}" if plain else shlex.quote(configuration.override(key, value))
