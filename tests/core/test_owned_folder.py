"""The folders of killed processes are removed by the next one, and those of living processes stay."""

import os
import subprocess
import sys

from fcnlab.core import owned_folder

MAKE = """
import sys, time
from pathlib import Path
from fcnlab.core import owned_folder

folder = owned_folder.make("mine-", Path(sys.argv[1]))
(folder / "content").write_text("something")
print(folder.name, flush=True)
sys.stdin.readline()
"""


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_lock_tells_whether_the_owner_lives(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    other = process.stdout.readline().strip()
    own = owned_folder.make("mine-", tmp_path).name
    assert names(tmp_path) == {other, own}
    process.kill()
    process.communicate()
    assert names(tmp_path) == {other, own}
    again = owned_folder.make("mine-", tmp_path).name
    assert names(tmp_path) == {own, again}


def test_what_is_no_folder_of_this_kind_stays(tmp_path):
    for name in ("other-1", "mine-without-lock"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine-file").touch()
    (tmp_path / "target").mkdir()
    (tmp_path / "mine-link").symlink_to(tmp_path / "target")
    (tmp_path / "target" / ".owner.lock").touch()
    before = names(tmp_path)
    owned_folder.remove_left("mine-", tmp_path)
    assert names(tmp_path) == before
    os.utime(tmp_path / "mine-without-lock", (1, 1))  # of an earlier version, which held no lock
    owned_folder.remove_left("mine-", tmp_path)
    assert names(tmp_path) == before - {"mine-without-lock"}
    owned_folder.remove_left("mine-", tmp_path / "missing")


def test_a_folder_that_is_released_is_an_ordinary_one(tmp_path):
    folder = owned_folder.make("mine-", tmp_path)
    assert names(folder) == {".owner.lock"}
    owned_folder.release(folder)
    assert names(folder) == set()


def test_where_there_are_no_locks_a_folder_is_left_to_its_age(tmp_path, monkeypatch):
    def refuse(path):
        path.touch()
        raise OSError("no locks available")

    monkeypatch.setattr(owned_folder, "FolderLock", refuse)
    folder = owned_folder.make("mine-", tmp_path)
    assert names(folder) == set()
    owned_folder.remove_left("mine-", tmp_path)
    assert folder.is_dir()
    os.utime(folder, (1, 1))
    owned_folder.remove_left("mine-", tmp_path)
    assert not folder.exists()


def test_a_lock_is_held_before_it_can_be_found(tmp_path, monkeypatch):
    """Otherwise another process might take it in between, and remove the folder."""
    found = []

    class Watched(owned_folder.FolderLock):
        def __init__(self, path):
            found.append(path.name)
            super().__init__(path)

    monkeypatch.setattr(owned_folder, "FolderLock", Watched)
    folder = owned_folder.make("mine-", tmp_path)
    assert found == [".owner.lock.new"]
    assert names(folder) == {".owner.lock"}
    owned_folder.release(folder)
