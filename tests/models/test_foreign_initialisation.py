"""A network that starts from a file computes what the file's network computes, or says what differs."""

import hashlib

import numpy as np
import pytest
import weight_files as files
from mindspore import Tensor
from safetensors.numpy import save_file

from fcnlab.core.errors import CheckpointError
from fcnlab.models import build_model
from fcnlab.models.checkpoint import save_weights
from fcnlab.models.foreign import initialise

WIDTH = 1 / 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PIXELS = Tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32))


def network(name="fcn8s", num_classes=3, width=WIDTH, norm="none", **options):
    return build_model(name, num_classes, width=width, norm=norm, **options)


def start(net, path, **options):
    options = {"mean": MEAN, "std": STD, **options}
    return initialise(net, path, f"init_from={path.name}", **options)


def refusal(net, path, **options):
    before = arrays(net)
    with pytest.raises(CheckpointError) as caught:
        start(net, path, **options)
    for name, array in arrays(net).items():
        np.testing.assert_array_equal(array, before[name])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def arrays(net):
    return {name: parameter.asnumpy().copy() for name, parameter in net.parameters_dict().items()}


def actions(done):
    """What became of each parameter."""
    return {row.name: row.action for row in done.rows if row.action != "not used"}


def unused(done):
    return [row.name for row in done.rows if row.action == "not used"]


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A file of torchvision's VGG-16."""
    return files.torch_file(tmp_path_factory.mktemp("vgg") / "vgg16.pth", files.torchvision_vgg())


@pytest.fixture(scope="module")
def vgg_bn(tmp_path_factory):
    """A file of torchvision's VGG-16 with batch norm."""
    return files.torch_file(tmp_path_factory.mktemp("vgg_bn") / "vgg16_bn.pth", files.torchvision_vgg(norm=True))


def test_vgg_of_torchvision(vgg):
    net = network()
    done = start(net, vgg)
    found, theirs = arrays(net), files.torchvision_vgg()
    np.testing.assert_array_equal(found["encoder.block5.conv3.weight"], theirs["features.28.weight"])
    np.testing.assert_array_equal(found["encoder.block1.conv1.weight"], theirs["features.0.weight"])
    np.testing.assert_array_equal(found["fc6.weight"].reshape(128, -1), theirs["classifier.0.weight"])
    table = actions(done)
    assert [*table][: len(found)] == [*found]
    assert (table["encoder.block1.conv1.weight"], table["fc6.weight"], table["score.weight"]) == (
        "taken", "reshaped", "initial")  # fmt: skip
    assert done.sha256 == hashlib.sha256(vgg.read_bytes()).hexdigest()
    assert done.counts == {"taken": 28, "reshaped": 2, "initial": 9}
    text = done.table()
    assert f"{vgg}: PyTorch, VGG-16 of torchvision's names, SHA-256 {done.sha256}" in text
    assert "\nencoder.block2.conv1.bias    taken      features.5.bias\n" in text


def test_a_checkpoint_of_several_networks_says_which_was_taken(tmp_path):
    arrays = files.torchvision_vgg()
    tensors = {f"module.{name}": files.torch_tensor(str(index), np.ascontiguousarray(array))
               for index, (name, array) in enumerate(arrays.items())}  # fmt: skip
    pickled = files.torch_dict({"model": files.torch_dict(tensors), "model_ema": files.torch_dict(tensors)})
    done = start(network(), files.torch_file(tmp_path / "a.pth", arrays, pickled))
    assert done.description == "PyTorch, VGG-16 of torchvision's names, its model and not its model_ema"


def test_batch_norm_is_folded_or_taken_with_the_same_result(vgg_bn):
    folded, normed = network(norm="none"), network(norm="batch")
    without, within = start(folded, vgg_bn), start(normed, vgg_bn)
    for ours, theirs in zip(folded.encoder(PIXELS), normed.encoder(PIXELS), strict=True):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-3, atol=1e-4)
    assert actions(without)["encoder.block4.conv2.weight"] == "converted"
    table = {row.name: row for row in within.rows}
    assert table["encoder.block1.norm1.gamma"].action == "taken"
    # The bias, which torchvision's convolutions have beside the batch norm, is in the running mean.
    assert table["encoder.block1.norm1.moving_mean"].sources == ("features.1.running_mean", "features.0.bias")
    assert unused(within) == [
        f"features.{n}.num_batches_tracked" for n in (1, 4, 8, 11, 15, 18, 21, 25, 28, 31, 35, 38, 41)
    ]


def test_weights_without_batch_norm_are_no_start_for_a_network_with_it(vgg):
    text = refusal(network(norm="batch"), vgg)
    assert text.startswith("init_from=vgg16.pth: has no batch norm (VGG-16 of torchvision's names)")
    assert "set arch.norm=none, or init_partial=true" in text
    normed, plain = network(norm="batch"), network(norm="none")
    done = start(normed, vgg, partial=True)
    start(plain, vgg)
    table = actions(done)
    assert (table["encoder.block1.norm1.moving_mean"], table["encoder.block1.norm1.gamma"]) == ("converted", "initial")
    for ours, theirs in zip(normed.encoder(PIXELS), plain.encoder(PIXELS), strict=True):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_other_images_need_another_first_convolution(vgg_bn, norm):
    expected, found = network(norm=norm), network(norm=norm)
    start(expected, vgg_bn)
    mean, std = [0.2, 0.6, 0.5], [0.5, 0.1, 0.25]
    done = start(found, vgg_bn, mean=mean, std=std)
    assert actions(done)["encoder.block1.conv1.weight"] == "converted"
    picture = np.random.default_rng(1).random((1, 3, 64, 64))
    pixels = [Tensor(((picture - np.reshape(m, (3, 1, 1))) / np.reshape(s, (3, 1, 1))).astype(np.float32))
              for m, s in ((MEAN, STD), (mean, std))]  # fmt: skip
    theirs, ours = (net.encoder(pixel)[0].asnumpy() for net, pixel in zip((expected, found), pixels, strict=True))
    np.testing.assert_allclose(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1], rtol=1e-3, atol=1e-4)


def test_images_of_the_expected_mean_make_it_exact_at_the_border_too(vgg_bn):
    expected, found, grey = network(), network(), network(in_channels=1)
    assert start(expected, vgg_bn).mean == MEAN
    mean, std = [0.2, 0.6, 0.5], [0.5, 0.1, 0.25]
    done = start(found, vgg_bn, mean=mean, std=std, take_mean=True)
    assert done.mean == MEAN
    ours = Tensor(PIXELS.asnumpy() * (np.array(STD) / std).astype(np.float32)[:, None, None])
    for theirs, features in zip(expected.encoder(PIXELS), found.encoder(ours), strict=True):
        np.testing.assert_allclose(features.asnumpy(), theirs.asnumpy(), rtol=1e-3, atol=1e-4)
    assert start(grey, vgg_bn, mean=[0.3], std=[0.2], take_mean=True).mean == [0.3]


def test_another_width_or_depth_is_refused(tmp_path, vgg):
    text = refusal(network(width=1 / 16), vgg)
    assert text.startswith("init_from=vgg16.pth: encoder.block1.conv1.weight has shape (2, 3, 3, 3)")
    assert text.endswith("set arch.width=0.03125")
    assert refusal(network(width=1 / 16, norm="batch"), vgg).endswith("set arch.width=0.03125 arch.norm=none")
    deeper = files.torch_file(tmp_path / "vgg19.pth", files.torchvision_vgg(depths=(2, 2, 4, 4, 4)))
    assert "is of arch.encoder=vgg19 (VGG-19 of" in refusal(network(), deeper)
    assert "has encoder.block3.conv4.weight (VGG-19 of" in refusal(network("paper/fcn8s"), deeper)
    assert "features.16.weight" in unused(start(network(), deeper, partial=True))
    flatter = files.torch_file(tmp_path / "vgg13.pth", files.torchvision_vgg(depths=(2, 2, 2, 2, 2)))
    assert "lacks encoder.block3.conv3.weight and 5 more of the encoder's 26" in refusal(
        network("paper/fcn8s"), flatter
    )
    assert actions(start(network(), flatter, partial=True))["encoder.block3.conv3.weight"] == "initial"
    assert "none of it fits" in refusal(network(width=1 / 7), vgg, partial=True)


def test_convolutions_without_biases_are_whole(tmp_path):
    convolutions = {name: array for name, array in files.torchvision_vgg(layer="layers").items() if "bias" not in name}
    done = start(network(), files.torch_file(tmp_path / "vgg16.ckpt", convolutions))
    assert actions(done)["encoder.block1.conv1.bias"] == "initial"


def test_images_of_other_channels_keep_their_first_convolution(vgg):
    net = network(in_channels=5)
    done = start(net, vgg, mean=[0.5] * 5, std=[0.25] * 5)
    assert actions(done)["encoder.block1.conv1.weight"] == "initial"
    assert unused(done)[0] == "features.0.weight"
    expected = files.torchvision_vgg()["features.2.weight"]
    np.testing.assert_array_equal(arrays(net)["encoder.block1.conv2.weight"], expected)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    values = files.torchvision_vgg()
    values["classifier.3.bias"][5] = np.nan
    assert "fc7.bias holds NaN or infinity" in refusal(network(), files.torch_file(tmp_path / "a.pth", values))


def test_a_variance_below_0_is_refused(tmp_path):
    values = arrays(network(norm="batch"))
    values["encoder.block1.norm1.moving_variance"][0] = -0.1
    np.savez(tmp_path / "a.npz", **values)
    assert "moving_variance holds a variance below 0" in refusal(network(norm="batch"), tmp_path / "a.npz")


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path):
    values = files.torchvision_vgg(norm=True)
    values["features.1.running_var"] = np.ones(3, np.float32)
    text = refusal(network(), files.torch_file(tmp_path / "a.pth", values))
    assert "features.1.running_var does not fit" in text


def test_what_a_file_says_of_itself_cannot_move_the_cursor_of_a_terminal(tmp_path):
    net, path = network(), tmp_path / "own.safetensors"
    save_weights(path, net, {"arch": {"name": "fcn8s", "encoder": "\x1b[2J\nall is well" * 1000}})
    text = refusal(net, path)
    assert "arch.encoder=?[2J?all is well" in text
    assert len(text) < 500
    save_file({**arrays(net), "encoder.\x1b[2J\nall is well": np.zeros((1, 1, 3, 3), np.float32)}, path)
    assert "encoder.?[2J?all is well" in refusal(net, path)


def test_fcn_with_its_own_classes_is_taken_whole(tmp_path):
    random = np.random.default_rng(6)
    shapes = {name: array.shape for name, array in arrays(network("fcn16s")).items()}
    theirs = {"score": "score_fr", "upsample_pool4": "upscore2", "upsample": "upscore16"}
    values = {}
    for name, shape in shapes.items():
        layer, _, part = name.rpartition(".")
        if layer.startswith("encoder"):
            layer = f"conv{layer[13]}_{layer[-1]}"
        values[f"{theirs.get(layer, layer)}.{part}"] = random.standard_normal(shape).astype(np.float32)
    save_file(values, tmp_path / "fcn16s.safetensors")
    net = network("fcn16s")
    done = start(net, tmp_path / "fcn16s.safetensors")
    assert done.counts == {"converted": 2, "taken": len(shapes) - 2}
    np.testing.assert_array_equal(arrays(net)["upsample.weight"], values["upscore16.weight"])
    other = start(network("fcn16s", num_classes=4), tmp_path / "fcn16s.safetensors")
    assert {*unused(other)} == {name for name in values if name.startswith(("score", "upscore"))}


# Checkpoints of this package


def save(path, net, **document):
    save_weights(path, net, document)
    return path


def test_stages_as_in_the_paper(tmp_path):
    coarse, fine = network("fcn32s", seed=1, norm="batch"), network("fcn16s", seed=2, norm="batch")
    untouched = arrays(fine)
    table = actions(start(fine, save(tmp_path / "a.safetensors", coarse)))
    left = [name for name in arrays(fine) if table[name] == "initial"]
    assert left == ["score_pool4.weight", "score_pool4.bias", "upsample_pool4.weight", "upsample.weight"]
    for name, array in arrays(fine).items():
        np.testing.assert_array_equal(array, untouched[name] if name in left else arrays(coarse)[name])


def test_classes_that_both_name_keep_their_scores(tmp_path):
    old, new = network(num_classes=3), network(num_classes=4)
    random = np.random.default_rng(7)
    for name, parameter in old.parameters_dict().items():
        if name.startswith(("score", "upsample")):
            parameter.set_data(Tensor(random.standard_normal(parameter.shape).astype(np.float32)))
    path = save(tmp_path / "a.safetensors", old, class_names=["sky", "road", "class_2"])
    before, theirs = arrays(new), arrays(old)
    done = start(new, path, class_names=["car", "class_2", "road", "sky"])
    assert actions(done)["score.weight"] == actions(done)["upsample.weight"] == "converted"
    after = arrays(new)
    np.testing.assert_array_equal(after["score.bias"], [0, 0, *theirs["score.bias"][[1, 0]]])
    np.testing.assert_array_equal(after["score.weight"][[3, 2]], theirs["score.weight"][[0, 1]])
    np.testing.assert_array_equal(after["upsample.weight"][3, 2], theirs["upsample.weight"][0, 1])
    np.testing.assert_array_equal(after["upsample.weight"][:2], before["upsample.weight"][:2])
    unnamed = start(network(num_classes=4), path, class_names=["class_0", "class_1", "class_2", "class_3"])
    assert actions(unnamed)["score.weight"] == "initial"


def test_a_checkpoint_of_other_images_is_converted(tmp_path):
    old = network(norm="batch")
    path = save(tmp_path / "a.safetensors", old, normalisation={"mean": [0.5] * 3, "std": [0.25] * 3})
    assert actions(start(network(norm="batch"), path))["encoder.block1.conv1.weight"] == "converted"
    done = start(network(norm="batch"), path, mean=[0.5] * 3, std=[0.25] * 3)
    assert set(done.counts) == {"taken"}


def test_a_network_of_another_package_starts_from_its_own_names(tmp_path):
    from mindspore import nn

    net, other = nn.Dense(3, 2), nn.Dense(3, 2)
    save_weights(tmp_path / "a.safetensors", net, {})
    assert actions(start(other, tmp_path / "a.safetensors")) == {"weight": "taken", "bias": "taken"}
    np.testing.assert_array_equal(arrays(other)["weight"], arrays(net)["weight"])
