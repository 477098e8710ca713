"""Asks the trials of a sweep to stop, by a file in its folder: a signal does not reach the jobs of other machines."""

from __future__ import annotations

from pathlib import Path

from fcnlab.sweeps import result

_FILE = "end"


def make(sweep: Path) -> None:
    """Ask every trial to save its state and stop, and the trials that have not begun not to begin.

    Raises:
        OSError: If the disk does not take the file.
    """
    path = _path(sweep)
    path.parent.mkdir(exist_ok=True)
    path.touch()


def withdraw(sweep: Path) -> None:
    """Let trials run again.

    Raises:
        OSError: If the file cannot be deleted.
    """
    _path(sweep).unlink(missing_ok=True)


def is_made(sweep: Path) -> bool:
    """Return whether the trials of a sweep were asked to stop."""
    return _path(sweep).exists()


def _path(sweep: Path) -> Path:
    return sweep / result.FOLDER / _FILE
