"""A lock of one process, on Windows too."""

import errno
import fcntl
import types

import pytest

from fcnlab.core import locks
from fcnlab.core.locks import FolderLock


def locking(file, mode, count):
    """Lock as Windows' C library does, which says no with another error."""
    assert (mode, count) == ("at once", 1)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


@pytest.fixture(params=["posix", "windows"])
def system(request, monkeypatch):
    if request.param == "windows":
        monkeypatch.setattr(locks, "fcntl", None)
        monkeypatch.setattr(locks, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK="at once"))


def test_one_holds_it_until_it_is_released(system, tmp_path):
    first = FolderLock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        FolderLock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        FolderLock.wait(tmp_path / "lock", 0.1)
    first.release()
    first.release()
    FolderLock(tmp_path / "lock").release()
