"""The file of the counts of each image, and what becomes of a damaged one."""

import zipfile

import numpy as np
import pytest

from fcnlab.core.errors import DataError
from fcnlab.metrics.image_counts import ImageCounts

COUNTS = np.arange(4 * 9).reshape(4, 3, 3) * 1000
NAMES = ("b", "a-10", "Zelle µ\0", "0001.0")
SOME = ImageCounts(NAMES, ("stack", "other", "stack", "0001.0"), COUNTS, step=70_000)


def test_it_reads_what_it_wrote(tmp_path):
    SOME.write(tmp_path / "folder" / "a.npz")
    found = ImageCounts.read(tmp_path / "folder" / "a.npz")
    assert (found.names, found.groups, found.step) == (NAMES, SOME.groups, 70_000)
    assert found.counts.dtype == np.int64
    np.testing.assert_array_equal(found.counts, COUNTS)
    np.testing.assert_array_equal(found.total, COUNTS[0] + COUNTS[1] + COUNTS[2] + COUNTS[3])


def test_equal_counts_are_equal_bytes_and_few(tmp_path):
    random = np.random.default_rng(0)
    counts = random.integers(0, 512 * 512, (30, 2, 2))
    names = tuple(f"slice-{number:02d}" for number in range(30))
    for name in ("a", "b"):
        ImageCounts(names, names, counts, step=7).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len((tmp_path / "a").read_bytes()) < 4096


def test_a_group_has_the_counts_of_its_images():
    groups, sums = SOME.by_group()
    assert groups == ["0001.0", "other", "stack"]
    np.testing.assert_array_equal(sums, [COUNTS[3], COUNTS[1], COUNTS[0] + COUNTS[2]])


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "a.npz"
    SOME.write(path)
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", names=np.array([1.5]))
    np.savez(tmp_path / "runs code.npz", **dict.fromkeys(("names", "groups", "counts", "step"), np.array([print])))
    np.savez(tmp_path / "short.npz", names=["a."], groups=["a."], counts=np.zeros((2, 3, 3), int), step=1)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (10000000000000, 3, 3)}"
        array = b"\x93NUMPY\x01\x00" + (128 - 10).to_bytes(2, "little") + header.ljust(117) + b"\n"
        for name in ("names", "groups", "counts", "step"):
            archive.writestr(f"{name}.npy", array)
    damaged = [whole[:100], b"", whole[:200] + b"\1" + whole[201:], b"PK\3\4"]
    damaged += [(tmp_path / f"{name}.npz").read_bytes() for name in ("other", "runs code", "short", "huge")]
    for data in damaged:
        with pytest.raises(DataError) as caught:
            ImageCounts.read(data)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"none\.npz"):
        ImageCounts.read(tmp_path / "none.npz")
