"""Locks that a crash cannot leave behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # every other system
    msvcrt = None  # type: ignore[assignment]


@contextmanager
def waited_for(path: Path, seconds: float) -> Iterator[None]:
    """Hold a lock within the block, if it becomes free in time and can be made; otherwise run the block without it.

    Args:
        path: The file of the `FolderLock`.
        seconds: How long to wait at most.
    """
    try:
        lock = FolderLock.wait(path, seconds)
    except OSError:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


class FolderLock:
    """A lock that one process at a time holds; the operating system releases it when that process ends.

    Args:
        path: The file of the lock, which is made when missing, and kept.

    Raises:
        BlockingIOError: If another process, or another lock of this one, holds it.
        OSError: If the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            _lock(self._file)
        except OSError:
            self.release()
            raise

    @classmethod
    def wait(cls, path: Path, seconds: float) -> FolderLock:
        """Wait until the lock is free, and hold it.

        Args:
            path: The file of the lock.
            seconds: How long to wait at most.

        Raises:
            BlockingIOError: If the lock did not become free in time.
            OSError: If the file cannot be made.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return cls(path)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(file: int) -> None:
    """Lock an open file for this descriptor alone, until it is closed.

    Raises:
        BlockingIOError: If it is locked.
        OSError: If it cannot be locked.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # its first byte, which need not be there
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from None
