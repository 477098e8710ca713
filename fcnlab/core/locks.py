"""A lock that a crash cannot leave behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock, and so no protection from a second process
    fcntl = None  # type: ignore[assignment]


@contextmanager
def waited_for(path: Path, seconds: float) -> Iterator[None]:
    """Hold a lock, once whoever has it gives it back; after some time, or where there can be none, go on without.

    Args:
        path: As `FolderLock` takes it.
        seconds: To wait at most.
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
    """Held by one process at a time; the operating system gives it back when that process ends.

    Args:
        path: A file that is made when missing, and left.

    Raises:
        BlockingIOError: If another process, or another lock of this one, holds it.
        OSError: If the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise

    @classmethod
    def wait(cls, path: Path, seconds: float) -> FolderLock:
        """Hold it once whoever has it gives it back.

        Args:
            path: As for the class.
            seconds: To wait at most.

        Raises:
            BlockingIOError: If nobody gave it back in time.
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
        """Let others have it; again does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
