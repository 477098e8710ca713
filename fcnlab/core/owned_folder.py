"""Folders of one process, which the next one removes if the process could not do so itself."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from fcnlab.core.locks import FolderLock

_LOCK = ".owner.lock"
"""The file within such a folder that its process holds a lock on for as long as it lives."""
_HOURS_WITHOUT_LOCK = 24.0
"""The age at which a folder without a lock counts as left: an earlier version made it, or a kill came in between."""


def make(prefix: str, parent: Path | None = None) -> Path:
    """Make a folder for this process alone, and remove those of processes that were killed.

    The caller removes the folder itself when it is done with it; the lock is held until this process ends.

    Args:
        prefix: What the names of all folders of this kind begin with.
        parent: Where to make it; None for the system's folder for temporary files.

    Raises:
        OSError: If the folder cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_left(prefix, parent)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    # The lock is held before it has the name by which others look for it: nobody finds it without its owner.
    unnamed = folder / f"{_LOCK}.new"
    try:
        _held[folder] = FolderLock(unnamed)
        unnamed.rename(folder / _LOCK)
    except OSError:  # a file system without locks: the folder is removed by its age
        with suppress(OSError):
            unnamed.unlink()
    return folder


def release(folder: Path) -> None:
    """Make a folder that `make` returned an ordinary one, which no process owns."""
    with suppress(OSError):
        (folder / _LOCK).unlink()
    if (lock := _held.pop(folder, None)) is not None:
        lock.release()


_held: dict[Path, FolderLock] = {}


def remove_left(prefix: str, parent: Path) -> None:
    """Remove the folders of processes that do not live any more; those of other users stay."""
    with suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(prefix) and _is_left(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_left(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder of ours whose process has ended."""
    try:
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
            return False
        if not Path(entry.path, _LOCK).exists():
            return time.time() - status.st_mtime > _HOURS_WITHOUT_LOCK * 3600
        FolderLock(Path(entry.path, _LOCK)).release()
    except OSError:  # its process holds the lock, or it is gone already
        return False
    return True
