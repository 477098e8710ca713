"""``python -m fcnlab.track``: send the journals of trainings that are over."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fcnlab import command
from fcnlab.core.errors import FcnlabError
from fcnlab.recording import journal


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: The words behind the name of the command; None for those of the command line.

    Raises:
        SystemExit: With code 1 if a folder could not be sent; the others are sent nevertheless.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    failed = False
    for folder in (folder for given in arguments.run_dir for folder in _run_folders(given)):
        try:
            print(f"{folder}: everything is in run {_sync(folder, arguments.uri)}")
        except FcnlabError as error:
            failed = True
            print(f"fcnlab: {error}", file=sys.stderr)
    if failed:
        sys.exit(command.EXIT_ERROR)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m fcnlab.track", description=__doc__.partition(": ")[2])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sync = commands.add_parser(
        "sync",
        help="send to a tracking store what it does not have yet",
        description="Send to an MLflow store what it does not have yet of trainings that are over: those that ran with "
        "tracking=none, ended while the store was away, or were killed. What the store has is not sent again.",
    )
    sync.add_argument(
        "run_dir", nargs="+", type=Path, metavar="RUN_DIR", help="output folder of a training, or a folder of several"
    )
    sync.add_argument("--uri", help="the store; by default that of the run, or else MLFLOW_TRACKING_URI or mlflow.db")
    return parser


def _run_folders(given: Path) -> list[Path]:
    """Return the output folders anywhere below a folder, or the folder itself; a sweep comes before its trials."""
    return sorted(path.parent for path in given.rglob(journal.FILE)) or [given]


def _sync(folder: Path, uri: str | None) -> str:
    from fcnlab.tracking.journal_sender import sync  # not at the top, so that --help does not wait for MLflow

    return sync(folder, uri)


if __name__ == "__main__":
    command.run(main)
