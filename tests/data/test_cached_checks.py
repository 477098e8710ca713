"""Files that were found good once are not read again, unless something about them changed."""

import os
import time

import cv2
import numpy as np
import pytest

from fcnlab.config.roles import Role
from fcnlab.config.schema import FolderConfig, keys_with
from fcnlab.core.errors import DataError
from fcnlab.data import Cached, Dataset, Sample, cached_checks, file_times
from fcnlab.data.cached_checks import CachedChecks
from fcnlab.data.image_folder import Folder


@pytest.fixture
def root(tmp_path):
    """Four pairs that are an hour old."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
        for number, name in enumerate("abcd"):
            write(root / folder / f"{name}.png", np.full((8, 8), number % 2, np.uint8))
    return root


def write(path, pixels):
    cv2.imwrite(str(path), pixels)
    settle(path)


def settle(path):
    """Make a file an hour old; the time of the inode's last change cannot be set, which `without_waiting` is for."""
    os.utime(path, (time.time() - 3600,) * 2)


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr(file_times, "SETTLED", 0)


class Counted(Folder):
    """A folder that counts how many samples are decoded and digested."""

    __module__ = Folder.__module__

    def __init__(self, *arguments):
        self.decoded = self.digested = 0
        super().__init__(*arguments)

    def __getitem__(self, index):
        self.decoded += 1
        return super().__getitem__(index)

    def _stored(self, name):
        self.digested += 1
        return super()._stored(name)


def start(root, cache, **keys):
    """Check as a training does at its start; return how many samples were decoded and digested, and the fingerprint."""
    config = FolderConfig(root=str(root), val_fraction=0.25, **keys)
    inner = Counted(config, "train")
    dataset = CachedChecks(Cached(inner, 1), keys_with(Role.READS, config), cache)
    dataset.check()
    found = dataset.fingerprint()
    assert found == inner.fingerprint()
    return inner.decoded, inner.digested - 3, found


def test_a_second_start_reads_nothing_and_has_the_same_fingerprint(root, tmp_path):
    decoded, digested, found = start(root, tmp_path / "cache")
    assert (decoded, digested) == (3, 3)
    assert start(root, tmp_path / "cache") == (0, 0, found)
    assert start(root, tmp_path / "another") == (3, 3, found)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: os.utime(path, (1, 1)),
        lambda path: write(path, np.full((8, 8), 1, np.uint8)),  # as long, and as old
    ],
    ids=["longer", "touched", "changed under the same time"],
)
def test_a_changed_file_is_read_again(root, tmp_path, change):
    start(root, tmp_path / "cache")
    [name] = {"a", "b", "c", "d"} - set(Folder(FolderConfig(root=str(root), val_fraction=0.75), "val").names)
    change(root / "images" / f"{name}.png")
    dataset = Counted(FolderConfig(root=str(root), val_fraction=0.25), "train")
    assert name in dataset.names
    decoded, digested, _ = start(root, tmp_path / "cache")
    assert (decoded, digested) == (3, 3)


def test_a_file_that_was_damaged_since_is_found(root, tmp_path):
    start(root, tmp_path / "cache")
    dataset = CachedChecks(Folder(FolderConfig(root=str(root), val_fraction=0.25), "train"), {}, tmp_path / "cache")
    path = root / "labels" / f"{dataset.names[1]}.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or truncated"):
        dataset.check()
    with pytest.raises(DataError, match="damaged or truncated"):  # Bad files are not cached as good.
        dataset.check()
    dataset.fingerprint()
    with pytest.raises(DataError, match="damaged or truncated"):
        dataset.check()


@pytest.mark.parametrize(
    "keys", [{"num_classes": 3}, {"label_values": [0, 1]}, {"ignore_index": 7}, {"class_names": ["x", "y"]}]
)
def test_other_labelling_is_checked_anew(root, tmp_path, keys):
    start(root, tmp_path / "cache")
    assert start(root, tmp_path / "cache", **keys)[:2] == (3, 3)


def test_what_has_no_part_in_reading_changes_nothing(root, tmp_path):
    _, _, found = start(root, tmp_path / "cache")
    keys = {"crop_size": 64, "crops_per_image": 3, "mean": [0.0] * 3, "cache_mib": 1, "num_workers": 2}
    assert start(root, tmp_path / "cache", **keys) == (0, 0, found)


def test_another_version_of_the_code_checks_anew(root, tmp_path, monkeypatch):
    start(root, tmp_path / "cache")
    monkeypatch.setattr(cached_checks, "_code", lambda: "another")
    assert start(root, tmp_path / "cache")[:2] == (3, 3)


def test_a_class_of_another_package_is_always_checked(root):
    class Other(Folder):
        pass

    assert Other(FolderConfig(root=str(root)), "train").stamp() is None
    assert Folder(FolderConfig(root=str(root)), "train").stamp() is not None


def test_the_same_folder_is_known_from_anywhere(root, tmp_path, monkeypatch):
    _, _, found = start(root, tmp_path / "cache")
    monkeypatch.chdir(root.parent)
    assert start(root.name, tmp_path / "cache") == (0, 0, found)


def test_files_that_have_just_been_written_are_not_trusted(root, tmp_path, monkeypatch):
    monkeypatch.setattr(file_times, "SETTLED", 3600 * 10**9)
    for _ in range(2):
        assert start(root, tmp_path / "cache")[:2] == (3, 3)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0" * 32, b"0" * 32 + b"\n" + b"0" * 32, b"\n"])
def test_a_damaged_entry_is_ignored_and_mended(root, tmp_path, content):
    _, _, found = start(root, tmp_path / "cache")
    [entry] = (tmp_path / "cache").iterdir()
    entry.write_bytes(content)
    assert start(root, tmp_path / "cache") == (3, 3, found)
    assert start(root, tmp_path / "cache") == (0, 0, found)


def test_an_entry_under_another_name_is_ignored(root, tmp_path):
    start(root, tmp_path / "cache")
    [entry] = (tmp_path / "cache").iterdir()
    content = entry.read_bytes()
    start(root, tmp_path / "cache", num_classes=3)
    [other] = set((tmp_path / "cache").iterdir()) - {entry}
    other.write_bytes(content)
    assert start(root, tmp_path / "cache", num_classes=3)[:2] == (3, 3)


def test_a_cache_that_cannot_be_written_does_no_harm(root, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for _ in range(2):
        assert start(root, tmp_path / "file" / "cache")[:2] == (3, 3)


def test_the_cache_is_bounded(root, tmp_path, monkeypatch):
    monkeypatch.setattr(cached_checks, "MAX_ENTRIES", 3)
    for count in range(2, 8):
        start(root, tmp_path / "cache", num_classes=count)
    assert len(list((tmp_path / "cache").iterdir())) == 3
    assert start(root, tmp_path / "cache", num_classes=7)[:2] == (0, 0)


def test_a_data_set_without_a_stamp_is_as_ever(tmp_path):
    class Plain(Dataset):
        names = ["a"]
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return Sample(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), "a")

    plain = Plain()
    for _ in range(2):
        dataset = CachedChecks(plain, {}, tmp_path / "cache")
        dataset.check()
        dataset.fingerprint()
    assert plain.reads == 4
    assert not (tmp_path / "cache").exists()


def test_a_long_check_is_announced(root, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    dataset = Folder(FolderConfig(root=str(root), split_seed=1), "train")
    CachedChecks(dataset, {}, tmp_path / "cache").check()
    assert not caplog.messages
    monkeypatch.setattr(cached_checks, "_MANY", 2)
    CachedChecks(dataset, {}, tmp_path / "cache").check()
    assert caplog.messages == ["reading 3 images once, to find what is wrong with them"]
