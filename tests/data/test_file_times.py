"""The times of a file tell that nothing has changed, or are not trusted."""

import os
import shutil
import time

import pytest

from fcnlab.data import file_times
from fcnlab.data.file_times import SETTLED, SETTLED_ON_A_SERVER, identity

LATER = 10**9 * 3600  # an hour after the files of a test were written


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "label.png"
    path.write_bytes(b"one")
    return path


def later():
    return time.time_ns() + LATER


def test_a_file_that_nobody_touched_is_the_same(file):
    assert identity(file, later()) == identity(file, later()) != None  # noqa: E711


def test_another_content_of_the_same_size_and_time_is_another_file(file, tmp_path):
    """``cp -p`` keeps the time of modification of the file that was copied."""
    before, times = identity(file, later()), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    source = tmp_path / "source.png"
    source.write_bytes(b"two")
    os.utime(source, ns=times)
    time.sleep(0.02)  # a tick of the file system's clock
    shutil.copy2(source, file)
    assert file.stat().st_mtime_ns == times[1]
    assert identity(file, later()) != before


def test_a_file_that_replaced_another_is_another_file(file, tmp_path):
    before = identity(file, later())
    other = tmp_path / "other.png"
    other.write_bytes(b"two")
    other.replace(file)
    assert identity(file, later()) != before


def test_a_young_file_is_not_trusted(file):
    written = file.stat().st_ctime_ns
    assert identity(file, written + SETTLED - 1) is None
    assert identity(file, written + SETTLED) is not None


@pytest.mark.parametrize("kind", ["vfat", "exfat", "fuse.sshfs", "fuseblk", "cifs", "smb3", "9p"])
def test_a_file_system_without_times_of_change_is_not_trusted(file, monkeypatch, kind):
    monkeypatch.setattr(file_times, "_file_system", lambda device: kind)
    assert identity(file, later()) is None


def test_a_server_s_clock_may_be_behind(file, monkeypatch):
    monkeypatch.setattr(file_times, "_file_system", lambda device: "nfs4")
    written = file.stat().st_ctime_ns
    assert identity(file, written + SETTLED_ON_A_SERVER - 1) is None
    assert identity(file, written + SETTLED_ON_A_SERVER) is not None


def test_the_kind_of_file_system_is_read_off_the_mounts(tmp_path, monkeypatch):
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 28 0:21 / /proc rw,nosuid - proc proc rw\n"
        f"98 28 {os.major(device)}:{os.minor(device)} / /data\\040here rw shared:5 master:1 - cifs //server/data rw\n"
    )
    monkeypatch.setattr(file_times, "_MOUNTS", mounts)
    assert file_times._file_system.__wrapped__(device) == "cifs"
    mounts.write_text("")
    assert file_times._file_system.__wrapped__(device) == ""
    mounts.unlink()
    assert file_times._file_system.__wrapped__(device) is None


def test_no_file_system_of_another_system_is_trusted(file, monkeypatch):
    """The time of change is, on Windows, the time when the file was made; and other systems say nothing of mounts."""
    file_times._file_system.cache_clear()
    try:
        with monkeypatch.context() as windows:
            windows.delattr("os.major")
            assert identity(file, later()) is None
    finally:
        file_times._file_system.cache_clear()
    assert identity(file, later()) is not None


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        identity(tmp_path / "none.png", later())
