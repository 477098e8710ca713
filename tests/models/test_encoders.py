"""Every encoder gives its maps at strides 2 to 32, and computes what its definition says with the weights of others."""

import mindspore as ms
import numpy as np
import pytest
import torchvision_files as torchvision
import weight_files as files
from mindspore import Tensor, nn

from fcnlab.core.errors import ConfigError
from fcnlab.inference.tiling import overlap
from fcnlab.kernels import stock_operators
from fcnlab.models import build_model
from fcnlab.models.encoders import build_encoder
from fcnlab.models.foreign import initialise
from fcnlab.registry import ENCODERS

WIDTH = 1 / 32
NAMES = ENCODERS.builtin()
RESNETS = [name for name in NAMES if name.startswith("resnet")]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def norms(name):
    return ("batch", "group") if name in RESNETS else ("batch", "group", "none")


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("alexnet", "vgg16", "resnet18", "resnet50") else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
    ],
)
def test_the_maps_are_as_large_and_as_wide_as_they_say(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for norm in norms(name):
        encoder = build_encoder(name, WIDTH, norm, 4)
        maps = encoder(Tensor(some(2, 4, 64, 96)))
        strides = [2, 4, 8, 16, 32][5 - len(maps) :]
        expected = [
            (2, channels, 64 // stride, 96 // stride)
            for channels, stride in zip(encoder.channels, strides, strict=True)
        ]
        assert [found.shape for found in maps] == expected
        names = {parameter.name for parameter in encoder.get_parameters()}
        assert ("block1.norm1.gamma" in names) == (norm != "none")
        assert ("block1.norm1.moving_mean" in names) == (norm == "batch")
        assert ("block1.conv1.bias" in names) == (norm == "none")


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("resnet18", "batch"),
        pytest.param("vgg11", "group", marks=pytest.mark.slow),
        pytest.param("alexnet", "none", marks=pytest.mark.slow),
    ],
)
def test_a_graph_of_any_size_computes_the_same(name, norm):
    network = build_model("fcn16s", 2, width=1 / 64, norm=norm, encoder=name)
    for layer in (network.score, network.score_pool4):
        layer.weight.set_data(Tensor(some(*layer.weight.shape)))
    images = [Tensor(some(1, 3, *size)) for size in ((32, 64), (45, 70))]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = [network(image).asnumpy() for image in images]
    ms.set_context(mode=ms.GRAPH_MODE)
    network.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    for image, logits in zip(images, expected, strict=True):
        np.testing.assert_allclose(network(image).asnumpy(), logits, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("vgg19", [64, 128, 256, 512, 512]),
        ("alexnet", [64, 64, 192, 256]),
        ("resnet18", [64, 64, 128, 256, 512]),
        ("resnet50", [64, 256, 512, 1024, 2048]),
    ],
)
def test_channels_at_the_real_width(name, channels, monkeypatch):
    encoder = build_encoder(name, 1 / 16, "group", 3)
    assert [16 * count for count in encoder.channels] == channels


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_needs_a_normalisation(name):
    with pytest.raises(ConfigError, match=r"^arch.norm=none: a residual network .* use arch.norm=batch or group"):
        build_model("fcn8s", 2, width=WIDTH, norm="none", encoder=name)


def test_a_stride_that_the_encoder_has_not_is_refused():
    assert build_model("fcn4s", 2, width=WIDTH, encoder="alexnet").stride == 4
    with pytest.raises(ConfigError, match=r"^arch.stride=2: arch.encoder=alexnet has no map .* arch=fcn4s"):
        build_model("fcn2s", 2, width=WIDTH, encoder="alexnet")


class Unsaid(nn.Cell):
    def __init__(self, width, norm, in_channels):
        super().__init__()


def test_an_unknown_encoder_and_an_unknown_key_of_one_are_refused():
    with pytest.raises(ConfigError, match="unknown encoder 'resnet5': did you mean 'resnet50'"):
        build_model("fcn8s", 2, encoder="resnet5")
    with pytest.raises(ConfigError, match=r"arch.encoder=resnet18: has no keys of its own, but is given dilated"):
        build_model("fcn8s", 2, encoder="resnet18", encoder_options={"dilated": True})
    ENCODERS.register("unsaid", Unsaid)
    try:
        with pytest.raises(ConfigError, match=r"arch.encoder=unsaid: got an unexpected keyword argument 'depth'"):
            build_model("fcn8s", 2, encoder="unsaid", encoder_options={"depth": 3})
    finally:
        ENCODERS.unregister("unsaid")


def test_an_encoder_must_say_its_channels():
    ENCODERS.register("unsaid", Unsaid)
    try:
        with pytest.raises(ConfigError, match=r"arch.encoder=unsaid: does not say the channels"):
            build_model("fcn8s", 2, encoder="unsaid")
    finally:
        ENCODERS.unregister("unsaid")


def test_a_resnet_is_scored_without_dense_layers_and_its_last_map_is_dropped():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = build_model("fcn8s", 3, width=WIDTH, encoder="resnet18", dropout=0.5).set_train()
    names = network.parameters_dict()
    assert not any(name.startswith("fc") for name in names)
    assert names["score.weight"].shape == (3, 16, 1, 1)
    masks = network.dropout_masks((2, 3, 40, 64), np.random.default_rng(0))
    assert masks.shape == (1, 2, 16, 2, 2)
    names["score.weight"].set_data(Tensor(np.ones((3, 16, 1, 1), np.float32)))
    image = Tensor(some(2, 3, 40, 64))
    network.set_train(False)
    plain = network(image).asnumpy()
    kept, dropped = (network(image, Tensor(np.full(masks.shape, value))).asnumpy() for value in (True, False))
    np.testing.assert_allclose(kept, 2 * plain, rtol=1e-4, atol=1e-4)
    assert np.abs(plain).max() > 0
    assert not dropped.any()


def start(tmp_path, arrays, **options):
    network = build_model(options.pop("name", "fcn8s"), 5, width=WIDTH, **options)
    path = files.torch_file(tmp_path / "weights.pth", arrays)
    return network, initialise(network, path, "init_from=weights.pth", mean=MEAN, std=STD)


def unused(done):
    return [row.name for row in done.rows if row.action == "not used" and not row.name.endswith("tracked")]


@pytest.mark.parametrize("depth", [18, 50, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (34, 101))])
def test_a_resnet_of_torchvision_computes_what_it_did(tmp_path, depth):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    arrays = torchvision.resnet(depth)
    network, done = start(tmp_path, arrays, encoder=f"resnet{depth}")
    assert f"ResNet-{depth} of torchvision's names" in done.description
    assert unused(done) == ["fc.weight", "fc.bias"]
    initial = {row.name for row in done.rows if row.action == "initial"}
    assert all(name.startswith(("score", "upsample")) for name in initial)
    image = some(3, 32, 64)
    expected = torchvision.resnet_maps(arrays, depth, image)
    for found, reference in zip(network.encoder(Tensor(image[None])), expected, strict=True):
        assert np.abs(found.asnumpy()[0] - reference).max() < 1e-5 * np.abs(reference).max()


def test_an_alexnet_of_torchvision_computes_what_it_did_on_a_padded_image(tmp_path):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    arrays = torchvision.alexnet()
    network, done = start(tmp_path, arrays, encoder="alexnet", norm="none")
    assert "AlexNet of torchvision's names" in done.description
    assert unused(done) == ["classifier.6.weight", "classifier.6.bias"]
    assert {row.name: row.action for row in done.rows}["fc6.weight"] == "reshaped"
    image = some(3, 64, 96)
    expected = torchvision.alexnet_maps(arrays, np.pad(image, ((0, 0), (31, 0), (31, 0))))
    for found, whole in zip(network.encoder(Tensor(image[None])), expected, strict=True):
        found = found.asnumpy()[0]
        reference = whole[:, whole.shape[1] - found.shape[1] :, whole.shape[2] - found.shape[2] :]
        assert np.abs(found - reference).max() < 1e-5 * np.abs(reference).max()


def refusal(tmp_path, arrays, **options):
    from fcnlab.core.errors import CheckpointError

    with pytest.raises(CheckpointError) as caught:
        start(tmp_path, arrays, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_weights_of_another_encoder_name_theirs(tmp_path):
    text = refusal(tmp_path, torchvision.resnet(34), encoder="resnet18")
    assert "is of arch.encoder=resnet34 (ResNet-34" in text
    assert "this network's is resnet18; set arch.encoder=resnet34, or init_partial=true" in text
    assert "set arch.encoder=alexnet" in refusal(tmp_path, torchvision.alexnet(), norm="none")


def test_group_normalisation_takes_nothing_of_batch_norm(tmp_path):
    arrays = torchvision.resnet(18)
    text = refusal(tmp_path, arrays, encoder="resnet18", norm="group")
    assert "has batch norm (ResNet-18" in text
    assert "set arch.norm=batch, or init_partial=true" in text
    network = build_model("fcn8s", 5, width=WIDTH, encoder="resnet18", norm="group")
    done = initialise(network, tmp_path / "weights.pth", "w", mean=MEAN, std=STD, partial=True)
    rows = {row.name: row.action for row in done.rows}
    assert rows["encoder.block3.unit1.conv_shortcut.weight"] == "taken"
    assert rows["encoder.block1.norm1.gamma"] == "initial"
    assert rows["bn1.weight"] == rows["layer1.0.bn1.bias"] == "not used"
    assert "has no normalisation" in refusal(tmp_path, files.torchvision_vgg(), norm="group")


def save(tmp_path, **options):
    from fcnlab.models.checkpoint import save_weights

    metadata = {"arch": {"name": "fcn8s", **options}, "normalisation": {"mean": MEAN, "std": STD}}
    save_weights(tmp_path / "own.safetensors", build_model("fcn8s", 5, width=WIDTH, **options), metadata)
    return tmp_path / "own.safetensors"


def test_own_weights_with_group_normalisation(tmp_path):
    from fcnlab.core.errors import CheckpointError

    path = save(tmp_path, norm="group", seed=3)
    again = build_model("fcn16s", 5, width=WIDTH, norm="group")
    assert initialise(again, path, "w", mean=MEAN, std=STD).counts["taken"] > 40
    for norm in ("batch", "none"):
        with pytest.raises(CheckpointError, match=r"has group normalisation .* set arch.norm=group"):
            initialise(build_model("fcn16s", 5, width=WIDTH, norm=norm), path, "w", mean=MEAN, std=STD)
    with pytest.raises(CheckpointError, match=r"group normalisation .* set dataset.mean=\[0.485, 0.456, 0.406\]"):
        initialise(again, path, "w", mean=[0.5, 0.5, 0.5], std=STD)


def test_a_checkpoint_without_the_key_is_of_vgg16(tmp_path):
    from fcnlab.core.errors import CheckpointError

    path = save(tmp_path, norm="none")
    with pytest.raises(CheckpointError, match=r"is of arch.encoder=vgg16 .* this network's is vgg19"):
        initialise(build_model("fcn8s", 5, width=WIDTH, norm="none", encoder="vgg19"), path, "w")


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_a_network_looks_no_further_than_the_overlap_of_tiles(name):
    """All weights are positive, so that any pixel in the receptive field changes the logit."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    norm = "batch" if name in RESNETS else "none"
    with stock_operators():
        network = build_model("fcn8s", 2, width=1 / 64, norm=norm, encoder=name)
    for parameter in network.trainable_params():
        if parameter.name.endswith("weight"):
            values = np.abs(parameter.asnumpy()) + np.float32(1e-2)
            parameter.set_data(Tensor(values / values[0].sum()))
    margin = overlap(network.head_kernel or 1, network.reach)
    first, last = 512, 543
    plain = np.full((1, 3, 32, 1056), 0.5, np.float32)

    def changes(column, at):
        image = plain.copy()
        image[..., column] += 1e4
        difference = network(Tensor(image)).asnumpy() - network(Tensor(plain)).asnumpy()
        return np.abs(difference[0, :, :, at]).max() > 0

    assert not changes(first - margin - 1, first)
    assert not changes(last + margin + 1, last)
    assert changes(first - margin // 2, first)
    assert changes(last + margin // 3, last)


def test_group_normalisation_sees_the_whole_image():
    assert build_model("fcn32s", 2, width=1 / 64, norm="group").reach is None
