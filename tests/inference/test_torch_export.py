"""A ``.pth`` file that is written without PyTorch is what PyTorch writes."""

import zipfile

import numpy as np
import pytest

from fcnlab.inference.torch_export import write_torch
from fcnlab.models.foreign.reading import read

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "features.0.weight": RANDOM.standard_normal((4, 3, 3, 3), np.float32),
    "features.0.bias": RANDOM.standard_normal(4, np.float32),
    "features.1.num_batches_tracked": np.array(2**40, np.int64),
    "classifier.0.weight": RANDOM.standard_normal((70000, 2), np.float32),  # sizes beyond one and two bytes
    "a view": RANDOM.standard_normal((6, 5), np.float32).T[::2],
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "weights.pth"
    write_torch(path, ARRAYS, {"mean": "[0.5]", "class_names": '["Hülle"]'})
    return path


def test_it_is_read_again(path):
    found = read(path)
    assert (found.kind, list(found.arrays)) == ("PyTorch", list(ARRAYS))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array.astype(np.float32))


def test_it_is_an_uncompressed_archive_of_aligned_contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {"archive/data.pkl", "archive/version", "archive/data/0"} <= {*archive.namelist()}
        assert archive.read("archive/version") == b"3\n"
        assert archive.read("archive/extra/fcnlab.txt").decode() == 'mean: [0.5]\nclass_names: ["Hülle"]\n'
        for member in archive.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
            with path.open("rb") as file:
                file.seek(member.header_offset + 26)
                name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
                assert (member.header_offset + 30 + name + extra) % 64 == 0
    content = path.read_bytes()
    write_torch(path, ARRAYS, {"mean": "[0.5]", "class_names": '["Hülle"]'})
    assert path.read_bytes() == content


@pytest.mark.parametrize("mapped", [False, True])
def test_pytorch_opens_it(path, mapped):
    torch = pytest.importorskip("torch")
    found = torch.load(path, weights_only=True, mmap=mapped)
    assert (type(found).__name__, list(found)) == ("OrderedDict", list(ARRAYS))
    for name, array in ARRAYS.items():
        assert found[name].is_contiguous()
        np.testing.assert_array_equal(found[name].numpy(), array)
        assert found[name].numpy().dtype == array.dtype
