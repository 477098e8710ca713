"""Checkpoints: what is written comes back; what does not fit is refused in one line."""

import mindspore as ms
import numpy as np
import pytest

from fcnlab.core.checkpoint_header import read_metadata
from fcnlab.core.errors import CheckpointError
from fcnlab.models import build_model, checkpoint
from fcnlab.models.checkpoint import initialise_from, load_weights, read_weights, save_weights

WIDTH = 1 / 64


def network(name="fcn32s", num_classes=2, seed=0, width=WIDTH, **options):
    return build_model(name, num_classes=num_classes, width=width, seed=seed, **options)


def arrays(net):
    return {name: parameter.asnumpy() for name, parameter in net.parameters_dict().items()}


def refusal(function, *arguments):
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_another_width_or_class_count_is_refused():
    assert "arch.width" in refusal(load_weights, network(), arrays(network(width=1 / 32)), "w")
    assert "score.weight" in refusal(load_weights, network(), arrays(network(num_classes=5)), "w")
    assert "score_pool4" in refusal(load_weights, network("fcn16s"), arrays(network()), "w")


def test_stages_as_in_the_paper():
    """FCN-16s starts from FCN-32s: shared layers are taken over, its own skip stays as initialised."""
    coarse, fine = network(seed=1), network("fcn16s", seed=2)
    untouched = arrays(network("fcn16s", seed=2))
    left = initialise_from(fine, arrays(coarse), "fcn32s")
    assert {"score_pool4.weight", "score_pool4.bias"} <= set(left)
    assert all(name.startswith(("score", "upsample")) for name in left)
    for name, array in arrays(fine).items():
        expected = untouched[name] if name in left else arrays(coarse)[name]
        np.testing.assert_array_equal(array, expected)


def test_other_classes_keep_their_own_head():
    left = initialise_from(network(num_classes=5), arrays(network()), "two classes")
    assert {"score.weight", "score.bias"} <= set(left)
    assert not any(name.startswith(("encoder", "fc")) for name in left)


def test_other_channels_begin_with_a_first_convolution_of_their_own():
    five, three = network(in_channels=5), network()
    left = initialise_from(five, arrays(three), "three channels")
    assert left == ["encoder.block1.conv1.weight"]
    np.testing.assert_array_equal(arrays(five)["fc6.weight"], arrays(three)["fc6.weight"])


def test_a_start_from_a_foreign_network_is_refused():
    assert "arch.width" in refusal(initialise_from, network(), arrays(network(width=1 / 32)), "wide")
    assert "another network" in refusal(initialise_from, network(), {"resnet.weight": np.zeros(3)}, "resnet")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_training_starts_from_what_is_no_number_but_it_can_be_looked_at(caplog, bad):
    values = {name: array.copy() for name, array in arrays(network()).items()}
    values["fc7.weight"].flat[5] = bad
    text = refusal(initialise_from, network(), values, "init_from=best.safetensors")
    assert text.startswith("init_from=best.safetensors: fc7.weight holds NaN or infinity")
    shown = network()
    load_weights(shown, values, "best.safetensors")
    np.testing.assert_array_equal(arrays(shown)["fc7.weight"], values["fc7.weight"])
    assert "best.safetensors: fc7.weight holds NaN or infinity" in caplog.text
    values["score.weight"] = np.full((5, 64, 1, 1), bad, np.float32)  # of other classes: not taken over
    values["fc7.weight"] = arrays(network())["fc7.weight"]
    assert "score.weight" in initialise_from(network(), values, "other classes")


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
