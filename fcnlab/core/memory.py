"""Recognises that memory has run out, whichever library says so, and gives back to the system what is not used."""

from __future__ import annotations

import ctypes
import errno
import re
import threading
from collections.abc import Callable
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_WORDS = re.compile(
    r"bad_alloc|out of memory|(?:cannot|can't|could not|failed to|unable to) (?:allocate|alloc|map)\b.*memory"
    r"|memory (?:is not|isn't|not) enough|not enough memory|insufficient memory|(?:alloc|malloc|mmap)\w*\b.{0,80}\bfail"
    r"|can't start new thread|thread: resource temporarily unavailable",
    re.IGNORECASE | re.DOTALL,
)
_UNKNOWN = "Unknown Error!"
"""What MindSpore says of an exception of C++ that it has no word for, as of one that found no memory."""
_LITTLE = 2**29
"""The bytes below which what is left of a limited address space counts as none: what was asked for did not fit."""


def has_run_out(error: BaseException) -> bool:
    """Return whether an error says that memory has run out.

    Args:
        error: An error of any library. MindSpore raises a `RuntimeError` in various words, or one that says nothing,
            which counts if ``ulimit -v`` leaves hardly any address space.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if not isinstance(error, RuntimeError) and type(error).__module__.partition(".")[0] != "cv2":
        return False
    text = str(error)
    if text.strip() == _UNKNOWN:
        left = address_space_left()
        return left is not None and left < _LITTLE
    return _WORDS.search(text) is not None


def address_space_left() -> int | None:
    """Return how many bytes ``ulimit -v`` leaves this process; None if it is not limited or nobody can tell."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return limit - pages * resource.getpagesize()


class Release:
    """Gives memory that is not used any more back to the system, a while after it was asked to for the last time.

    The C library keeps what was freed for the next request: ten times the size of the largest JSON document that a
    server ever got.

    Args:
        seconds: How long to wait, so that the caller's objects are freed and nobody asks again.
        release: Gives the memory back.
    """

    def __init__(self, seconds: float = 1.0, release: Callable[[], object] | None = None) -> None:
        self._seconds = seconds
        self._release = release or release_unused
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None

    def soon(self) -> None:
        """Ask for it, from any thread."""
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._seconds, self._release)
            self._timer.daemon = True
            self._timer.start()


def release_unused() -> None:
    """Give what the C library holds of freed memory back to the system, where it can: glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
