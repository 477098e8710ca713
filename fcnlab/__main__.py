"""``fcnlab <command> ...``, which does what ``python -m fcnlab.<command> ...`` does."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

import fcnlab
from fcnlab.config.command_names import COMMANDS
from fcnlab.config.folder import config_folder
from fcnlab.core.errors import did_you_mean


def main(words: Sequence[str] | None = None) -> None:
    """Run a command as ``python -m fcnlab.<command>`` does.

    Args:
        words: The words behind the program's name; None for those of the command line.

    Raises:
        SystemExit: With the command's code; with code 1 and one line if there is no such command.
    """
    name, *rest = list(sys.argv[1:] if words is None else words) or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_help())
    elif name in ("--version", "-V"):
        print(f"fcnlab {fcnlab.__version__}")
    elif name in COMMANDS:
        sys.argv[1:] = rest
        runpy.run_module(f"fcnlab.{name}", run_name="__main__", alter_sys=True)
    else:
        from fcnlab import command  # not at the top: it imports Hydra, which completion does not wait for

        hint = did_you_mean(name, COMMANDS)
        command.leave(command.EXIT_ERROR, f"{name}: no such command; {hint}there are {', '.join(COMMANDS)}")


def _help() -> str:
    listed = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return (
        f"fcnlab {fcnlab.__version__}: fully convolutional networks for semantic segmentation on MindSpore\n\n"
        f"  fcnlab COMMAND [KEY=VALUE ...]\n\n{listed}\n\n"
        "`fcnlab COMMAND --help` lists the command's keys. The files of the configuration are in\n"
        f"{config_folder()}"
    )


if __name__ == "__main__":
    main()
