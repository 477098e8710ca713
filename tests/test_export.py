"""An export computes the same as the network when another program or reader loads it."""

import json

import mindspore as ms
import numpy as np
import published_definition as definition
import pytest
from mindspore import Tensor, nn
from safetensors import safe_open
from tiny_network import ARCH, MEAN, METADATA, STD, save_checkpoint

import fcnlab
from fcnlab import config as configuration
from fcnlab.core import device
from fcnlab.core.errors import CheckpointError, ConfigError, ExportError
from fcnlab.experiment import exporting
from fcnlab.export import export
from fcnlab.models.foreign import initialise
from fcnlab.models.foreign.reading import read

SIZES = ((32, 32), (97, 130), (64, 200))


@pytest.fixture(autouse=True)
def nothing_to_compile(monkeypatch):
    """Compute operator by operator, and check exports at one size: the tests have sizes of their own."""
    monkeypatch.setattr(exporting, "SIZES", ((40, 64),))
    monkeypatch.setattr(device, "configure", lambda *arguments, **keys: ms.set_context(mode=ms.PYNATIVE_MODE))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.safetensors")


def run(checkpoint, file_format, output, *more):
    overrides = [f"checkpoint={checkpoint}", f"format={file_format}", f"output={output}", *more]
    return export(configuration.compose(overrides, "export"))


def compare(checkpoint, compute):
    network = fcnlab.load(checkpoint)
    for height, width in SIZES:
        images = np.random.default_rng(height).standard_normal((1, 3, height, width)).astype(np.float32)
        expected = network(Tensor(images)).asnumpy()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(compute(images), expected, atol=1e-4)


def check_description(read):
    assert json.loads(read("class_names")) == METADATA["class_names"]
    assert json.loads(read("palette")) == METADATA["palette"]
    assert (json.loads(read("mean")), json.loads(read("std"))) == (MEAN, STD)
    assert json.loads(read("fcnlab"))["arch"]["num_classes"] == 3


def published_checkpoint(path, name):
    return save_checkpoint(path, {"name": f"paper/{name}", "num_classes": 3, "width": 1 / 32, "dropout": 0.5})


@pytest.mark.parametrize("name", ["fcn8s_atonce", "fcn_alexnet"])
def test_onnx_of_a_published_network_computes_the_same_at_any_size(tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = published_checkpoint(tmp_path / "best.safetensors", name)
    path = run(checkpoint, "onnx", tmp_path / "published.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    compare(checkpoint, lambda images: session.run(["logits"], {"images": images})[0])


@pytest.mark.slow  # ONNX guards them, and MindIR of the other networks
@pytest.mark.parametrize("name", ["fcn16s", "fcn_alexnet"])
def test_mindir_of_a_published_network_computes_the_same_at_any_size(tmp_path, name):
    checkpoint = published_checkpoint(tmp_path / "best.safetensors", name)
    path = run(checkpoint, "mindir", tmp_path / "published.mindir")
    cell = nn.GraphCell(ms.load(str(path)))
    compare(checkpoint, lambda images: cell(Tensor(images)).asnumpy())


@pytest.mark.parametrize(
    ("stride", "norm"),
    [(8, "batch"), (2, "none"), *(pytest.param(stride, "batch", marks=pytest.mark.slow) for stride in (32, 16, 4, 2))],
)
def test_onnx_computes_the_same_at_any_size(tmp_path, stride, norm):
    onnxruntime = pytest.importorskip("onnxruntime")
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", {**ARCH, "name": f"fcn{stride}s", "norm": norm})
    path = run(checkpoint, "onnx", tmp_path / "out" / "cells.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    compare(checkpoint, lambda images: session.run(["logits"], {"images": images})[0])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 3, "height", "width"]
    check_description(session.get_modelmeta().custom_metadata_map.__getitem__)
    assert [item.name for item in path.parent.iterdir()] == ["cells.onnx"]


def test_mindir_computes_the_same_at_any_size(checkpoint, tmp_path):
    path = run(checkpoint, "mindir", tmp_path / "cells.mindir")
    cell = nn.GraphCell(ms.load(str(path)))
    compare(checkpoint, lambda images: cell(Tensor(images)).asnumpy())
    entries = {entry.key: entry.value for entry in ms.load_mindir(str(path)).user_info}
    check_description(entries.__getitem__)


def test_safetensors_is_a_checkpoint_again(checkpoint, tmp_path):
    path = run(checkpoint, "safetensors", tmp_path / "cells.safetensors")
    compare(checkpoint, lambda images: fcnlab.load(path)(Tensor(images)).asnumpy())
    with safe_open(str(path), framework="numpy") as file:
        check_description(file.metadata().__getitem__)
        assert file.get_tensor("fc6.weight").shape[2:] == (7, 7)
    assert fcnlab.load(path).class_names == METADATA["class_names"]


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CAFFE = [122.67892 / 255, 116.66877 / 255, 104.00699 / 255]
"""The mean of red, green and blue that FCN's authors subtract."""


def torchvision_logits(arrays, pixels, stride):
    """Compute the logits of one image, C x H x W, by the names of torchvision's VGG-16 and of the layers after it.

    Args:
        arrays: The weights. A place of ``features`` without weights is a ReLU or, where it is expected, a pooling.
        pixels: The image as torchvision prepares it, 3 x H x W.
        stride: The stride of the network.
    """
    has_norm = "features.1.running_mean" in arrays
    height, width = pixels.shape[1:]
    features = np.pad(pixels, ((0, 0), (0, -height % 32), (0, -width % 32)))
    pools, place = [], 0
    for depth in (2, 2, 3, 3, 3):
        for _ in range(depth):
            weight, bias = (arrays[f"features.{place}.{part}"] for part in ("weight", "bias"))
            features = definition.convolve(features, weight, bias, padding=1)
            if has_norm:
                parts = ("weight", "bias", "running_mean", "running_var")
                features = definition.normalised(features, *(arrays[f"features.{place + 1}.{part}"] for part in parts))
            features = definition.relu(features)
            place += 3 if has_norm else 2
        features = definition.pool(features, 2)
        pools.append(features)
        place += 1

    def dense(name, features, side):
        matrix = arrays[f"{name}.weight"]
        kernel = matrix.reshape(len(matrix), -1, side, side)
        return definition.relu(definition.convolve(features, kernel, arrays[f"{name}.bias"], padding=side // 2))

    def scored(name, features):
        return definition.convolve(features, arrays[f"{name}.weight"], arrays[f"{name}.bias"])

    def up(name, features, factor):
        padding = factor // 2
        return definition.deconvolve(features, arrays[f"{name}.weight"], factor)[:, padding:-padding, padding:-padding]

    score = scored("score", dense("classifier.3", dense("classifier.0", features, 7), 1))
    for pool, factor in ((4, 16), (3, 8), (2, 4), (1, 2)):
        if stride <= factor:
            score = up(f"upsample_pool{pool}", score, 2) + scored(f"score_pool{pool}", pools[pool - 1])
    return up("upsample", score, stride)[:, :height, :width]


@pytest.mark.parametrize(("stride", "norm", "file_format"), [(8, "batch", "torch"), (2, "none", "safetensors")])
def test_torchvisions_names_and_images(tmp_path, stride, norm, file_format):
    mean, std = IMAGENET[0], STD
    arch = {**ARCH, "name": f"fcn{stride}s", "norm": norm}
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", arch, {"normalisation": {"mean": mean, "std": std}})
    path = tmp_path / ("out.pth" if file_format == "torch" else "out.safetensors")
    run(checkpoint, file_format, path, "layout=torchvision")
    arrays = {name: array.astype(np.float64) for name, array in read(path).arrays.items()}
    picture = np.random.default_rng(0).random((3, 37, 70))
    theirs, ours = (centred(picture, mean, deviation) for deviation in (IMAGENET[1], std))
    expected = fcnlab.load(checkpoint)(Tensor(ours[None].astype(np.float32))).asnumpy()[0]
    found = torchvision_logits(arrays, theirs, stride)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert ("features.1.num_batches_tracked" in arrays) == (norm == "batch")
    assert (arrays["classifier.0.weight"].shape, arrays["classifier.3.weight"].shape) == ((128, 16 * 49), (128, 128))


BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


HEADS = {"score.weight", "score.bias", "upsample.weight"}


def resnet18_names():
    """The names of torchvision's ResNet-18 without its last layer."""
    layers = {"conv1": ("weight",), "bn1": BATCH_NORM}
    for stage in (1, 2, 3, 4):
        for unit in (0, 1):
            for number in (1, 2):
                layers[f"layer{stage}.{unit}.conv{number}"] = ("weight",)
                layers[f"layer{stage}.{unit}.bn{number}"] = BATCH_NORM
        if stage > 1:
            layers |= {f"layer{stage}.0.downsample.0": ("weight",), f"layer{stage}.0.downsample.1": BATCH_NORM}
    return {f"{layer}.{part}" for layer, parts in layers.items() for part in parts}


@pytest.mark.parametrize(
    ("arch", "expected", "others"),
    [
        ({"name": "fcn32s", "encoder": "resnet18"}, resnet18_names(), HEADS),
        (
            {"name": "fcn32s", "encoder": "alexnet", "norm": "none"},
            {f"{layer}.{part}" for layer in (*(f"features.{place}" for place in (0, 3, 6, 8, 10)), "classifier.1",
                                             "classifier.4") for part in ("weight", "bias")},
            HEADS,
        ),
    ],
    ids=["resnet18", "alexnet"],
)  # fmt: skip
def test_other_encoders_have_torchvisions_names(tmp_path, arch, expected, others):
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", {**ARCH, **arch})
    arrays = read(run(checkpoint, "torch", tmp_path / "out.pth", "layout=torchvision")).arrays
    assert {*arrays} == expected | others


def test_torchvisions_own_fcn_has_its_names(tmp_path):
    arch = {**ARCH, "name": "torchvision/fcn_resnet50"}
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", arch)
    arrays = read(run(checkpoint, "torch", tmp_path / "out.pth", "layout=torchvision")).arrays
    names = {"backbone.conv1.weight", "backbone.layer3.5.conv3.weight", "backbone.layer4.0.downsample.1.running_var"}
    assert names < {*arrays}
    head = {name for name in arrays if not name.startswith("backbone.")}
    assert head == {"classifier.0.weight", *(f"classifier.1.{part}" for part in BATCH_NORM), "classifier.4.weight",
                    "classifier.4.bias"}  # fmt: skip
    # The first convolution has no bias: what makes up for another mean is in the batch norm after it.
    picture = np.random.default_rng(0).random((3, 32, 32))
    network = fcnlab.load(checkpoint).network
    ours = network.encoder.block1(Tensor(centred(picture, MEAN, STD)[None].astype(np.float32))).asnumpy()[0]
    theirs = definition.convolve(centred(picture, *IMAGENET), arrays["backbone.conv1.weight"], np.zeros(2), 2, 3)
    theirs = definition.relu(
        definition.normalised(theirs, *(arrays[f"backbone.bn1.{part}"] for part in BATCH_NORM[:4]))
    )
    np.testing.assert_allclose(ours[:, 2:-2, 2:-2], theirs[:, 2:-2, 2:-2], rtol=1e-3, atol=1e-4)


def centred(picture, mean, std):
    """The picture, from 0 to 1, as a network takes it."""
    return (picture - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))


def test_images_of_another_mean_are_the_same_but_for_the_border(checkpoint, tmp_path, caplog):
    with caplog.at_level("INFO"):
        path = run(checkpoint, "torch", tmp_path / "out.pth", "layout=torchvision")
    assert (
        "near their border, where the network was trained with a padding of the colour [0.5, 0.4, 0.3]" in caplog.text
    )
    arrays = read(path).arrays
    picture = np.random.default_rng(0).random((3, 32, 32))
    network = fcnlab.load(checkpoint)
    layer = network.network.encoder.block1.conv1
    ours = layer(Tensor(centred(picture, MEAN, STD)[None].astype(np.float32))).asnumpy()[0]
    theirs = definition.convolve(
        centred(picture, *IMAGENET), arrays["features.0.weight"], arrays["features.0.bias"], padding=1
    )
    difference = np.abs(ours - theirs).max(axis=0)
    assert difference[1:-1, 1:-1].max() < 1e-4 < 1e-2 < difference[0].max()


TORCHFCN = {
    **{f"conv{block}_{index}": f"encoder.block{block}.conv{index}" for block in range(1, 6) for index in range(1, 4)},
    **{"fc6": "fc6", "fc7": "fc7", "score_fr": "score", "score_pool4": "score_pool4", "score_pool3": "score_pool3"},
    **{"upscore2": "upsample_pool4", "upscore_pool4": "upsample_pool3"},
    **dict.fromkeys(("upscore", "upscore16", "upscore8"), "upsample"),
}


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce"])
def test_torchfcns_names_and_images(tmp_path, name):
    arch = {"name": f"paper/{name}", "num_classes": 3, "width": 1 / 32, "dropout": 0.5}
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", arch, {"normalisation": {"mean": CAFFE, "std": STD}})
    path = run(checkpoint, "torch", tmp_path / "out.pth", "layout=torchfcn")
    arrays = {}
    for key, array in read(path).arrays.items():
        layer, _, part = key.rpartition(".")
        arrays[f"{TORCHFCN[layer]}.{part}"] = array.astype(np.float64)
    upsampling = {"fcn32s": "upscore", "fcn16s": "upscore16"}.get(name, "upscore8")
    assert f"{upsampling}.weight" in read(path).arrays
    picture = np.random.default_rng(0).random((3, 33, 41))
    ours = centred(picture, CAFFE, STD)[None].astype(np.float32)
    expected = fcnlab.load(checkpoint)(Tensor(ours)).asnumpy()[0]
    theirs = 255 * picture[::-1] - np.reshape([104.00699, 116.66877, 122.67892], (3, 1, 1))
    found = definition.published(name, arrays, theirs)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_file_of_another_layout_says_what_it_takes(checkpoint, tmp_path):
    path = run(checkpoint, "safetensors", tmp_path / "out.safetensors", "layout=torchvision")
    with safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata()
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == IMAGENET
    assert "RGB, (1 * pixel / 255 - mean) / std" in metadata["input"]
    assert json.loads(metadata["class_names"]) == METADATA["class_names"]
    with pytest.raises(CheckpointError, match=r"does not say which network it is of; use build_model.* and init_from"):
        fcnlab.load(path)
    network = fcnlab.build_model(**{**ARCH, "num_classes": 2})
    done = initialise(network, path, "init_from", mean=MEAN, std=STD, class_names=["Hülle", "sky"])
    assert {row.name: row.action for row in done.rows}["score.weight"] == "converted"  # of the class that both name


@pytest.mark.parametrize(
    ("arch", "words", "text"),
    [
        ({}, ["torch"], r"format=torch: set layout=torchvision, or layout=torchfcn for arch=paper/\.\.\., too"),
        ({}, ["onnx", "layout=torchvision"], "layout=torchvision: goes with format=torch and format=safetensors, not"),
        ({}, ["torch", "layout=torchfcn"], r"layout=torchfcn: has FCN-32s, 16s and 8s as they were published"),
        ({"name": "paper/fcn_alexnet"}, ["torch", "layout=torchvision"], "has AlexNet in one tower and without batch"),
        ({"norm": "group"}, ["torch", "layout=torchvision"], r"is for arch\.norm=batch and arch\.norm=none"),
        ({"in_channels": 5}, ["torch", "layout=torchvision"], "is for RGB images, .* have dataset.channels=5"),
    ],
)
def test_a_layout_without_such_a_network_is_refused(tmp_path, arch, words, text):
    arch = {**ARCH, **arch}
    if arch["name"].startswith("paper"):
        del arch["norm"]
    channels = arch.get("in_channels", 3)
    more = {"normalisation": {"mean": [0.5] * channels, "std": [0.2] * channels}}
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", arch, more)
    path = tmp_path / ("out.pth" if words[0] == "torch" else f"out.{words[0]}")
    with pytest.raises(ExportError, match=text) as caught:
        run(checkpoint, words[0], path, *words[1:])
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_an_export_that_differs_is_not_left_behind(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "cells.safetensors"
    path.write_text("an older one")
    monkeypatch.setattr(exporting, "_runner", lambda *arguments: lambda images: np.zeros((1, 3, *images.shape[2:])))
    with pytest.raises(ExportError, match="differs from the network's"):
        run(checkpoint, "safetensors", path)
    assert [item.name for item in tmp_path.iterdir()] == ["cells.safetensors"]
    assert path.read_text() == "an older one"


def test_the_files_ending_is_that_of_the_format(checkpoint, tmp_path):
    with pytest.raises(ExportError, match=r"must end in \.onnx, since format=onnx"):
        run(checkpoint, "onnx", tmp_path / "cells.mindir")


def test_a_file_without_a_name_is_named_after_the_checkpoint():
    assert str(exporting.default_path("runs:/0123/checkpoints/last.safetensors", "onnx")) == (
        "0123-checkpoints-last-safetensors.onnx"
    )
    assert str(exporting.default_path("models:/cells@champion", "mindir")) == "cells-champion.mindir"
    assert str(exporting.default_path("some/where/best.safetensors", "onnx")) == "best.onnx"
    assert str(exporting.default_path("some/where/best.safetensors", "torch")) == "best.pth"


def test_the_format_is_one_of_four():
    with pytest.raises(ConfigError, match="format=tflite: choose one of mindir, onnx, safetensors, torch"):
        configuration.compose(["checkpoint=a", "format=tflite"], "export")
