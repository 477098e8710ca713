"""Checkpoints: what is written comes back, and a damaged file is refused in one line."""

import mindspore as ms
import numpy as np
import pytest
from conftest import refusal
from tiny_network import arrays

from fcnlab.core.checkpoint_header import read_metadata
from fcnlab.core.errors import CheckpointError
from fcnlab.models import build_model, checkpoint
from fcnlab.models.checkpoint import read_weights, save_weights
from fcnlab.models.weights import load_weights


def network(seed=0):
    return build_model("fcn32s", num_classes=2, width=1 / 64, seed=seed)


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "best.safetensors"
    source, target = network(seed=1), network(seed=2)
    save_weights(path, source, {"epoch": 3, "class_names": ["a", "ü"]})
    loaded, metadata = read_weights(path)
    assert metadata == read_metadata(path) == {"epoch": 3, "class_names": ["a", "ü"]}
    load_weights(target, loaded, "best")
    for name, array in arrays(source).items():
        np.testing.assert_array_equal(arrays(target)[name], array)
    assert [file.name for file in path.parent.iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize("piece", [1, 100, 2000, 10**9])
def test_in_how_many_pieces_a_file_is_written_does_not_show(tmp_path, monkeypatch, piece):
    save_weights(tmp_path / "as_ever.safetensors", network(), {"epoch": 3})
    monkeypatch.setattr(checkpoint, "_PIECE", piece)
    save_weights(tmp_path / "in_pieces.safetensors", network(), {"epoch": 3})
    assert (tmp_path / "in_pieces.safetensors").read_bytes() == (tmp_path / "as_ever.safetensors").read_bytes()
    read_weights(tmp_path / "in_pieces.safetensors")


@pytest.mark.parametrize("piece", [100, 10**9])
def test_a_ckpt_is_what_mindspore_writes(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(checkpoint, "_PIECE", piece)
    kinds = [np.float32, np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_]
    values = {**arrays(network()), **{np.dtype(kind).name: np.ones((2, 3), kind) for kind in kinds}}
    values["scalar"] = np.float32(3).reshape([])
    values["turned"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    checkpoint.save_ckpt(tmp_path / "ours.ckpt", values)
    theirs = [{"name": name, "data": ms.Tensor(array)} for name, array in values.items()]
    ms.save_checkpoint(theirs, str(tmp_path / "theirs.ckpt"))
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()
    assert ms.load_checkpoint(str(tmp_path / "ours.ckpt")).keys() == values.keys()


def test_a_large_array_is_in_several_messages_of_a_ckpt(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_CKPT_SLICE", 1000)
    array = np.random.default_rng(0).normal(size=(30, 31)).astype(np.float32)
    checkpoint.save_ckpt(tmp_path / "large.ckpt", {"large": array})
    np.testing.assert_array_equal(read_weights(tmp_path / "large.ckpt")[0]["large"], array)
    np.testing.assert_array_equal(ms.load_checkpoint(str(tmp_path / "large.ckpt"))["large"].asnumpy(), array)


def test_mindspores_own_checkpoints_are_read(tmp_path):
    source = network(seed=1)
    ms.save_checkpoint(source, str(tmp_path / "net.ckpt"))
    loaded, metadata = read_weights(tmp_path / "net.ckpt")
    assert metadata == {}
    np.testing.assert_array_equal(loaded["fc6.weight"], arrays(source)["fc6.weight"])


@pytest.mark.parametrize("name", ["damaged.safetensors", "damaged.ckpt"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a checkpoint at all" * 10)
    assert name in refusal(read_weights, tmp_path / name)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, network(), {})
    path.write_bytes(path.read_bytes()[:-100])
    assert "best.safetensors" in refusal(read_weights, path)


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.safetensors" in refusal(read_weights, tmp_path / "nowhere.safetensors")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    text = refusal(save_weights, tmp_path / "file" / "best.safetensors", network(), {})
    assert str(tmp_path / "file") in text
    assert "hydra.run.dir" in text


def test_a_ckpt_with_more_bytes_than_its_shape_says_is_refused(tmp_path):
    """MindSpore's own reader copies them over whatever comes next in memory."""
    from mindspore.train.checkpoint_pb2 import Checkpoint

    message = Checkpoint()
    element = message.value.add(tag="a")
    element.tensor.dims.extend([3, 4])
    element.tensor.tensor_type = "Float32"
    element.tensor.tensor_content = bytes(4096)
    path = tmp_path / "a.ckpt"
    path.write_bytes(message.SerializeToString())
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        read_weights(path)
    element.tensor.tensor_content = np.arange(12, dtype=np.float32).tobytes()
    path.write_bytes(message.SerializeToString())
    np.testing.assert_array_equal(read_weights(path)[0]["a"], np.arange(12).reshape(3, 4))
