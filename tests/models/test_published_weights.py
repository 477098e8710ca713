"""The files that FCN's authors and torchfcn publish make the published networks compute what they publish."""

import numpy as np
import pytest
import weight_files as files
from mindspore import Tensor
from published_definition import random_network

from fcnlab.models.foreign import initialise

CAFFE = np.array([104.00699, 116.66877, 122.67892])
"""The mean of blue, green and red, from 0 to 255, that the authors subtract."""

STD = np.array([0.2, 0.25, 0.3])
PICTURE = np.random.default_rng(4).random((3, 35, 44))  # red, green and blue from 0 to 1

VGG_LAYERS = {
    f"encoder.block{block}.conv{index}": f"conv{block}_{index}" for block in range(1, 6) for index in (1, 2, 3)
}
HEADS = {"fc6": "fc6", "fc7": "fc7", "score": "score_fr", "score_pool4": "score_pool4", "score_pool3": "score_pool3"}
SKIPS = {"upsample_pool4": "upscore2", "upsample_pool3": "upscore_pool4"}
NAMES = {
    "fcn32s": {**VGG_LAYERS, **HEADS, "upsample": "upscore"},
    "fcn16s": {**VGG_LAYERS, **HEADS, **SKIPS, "upsample": "upscore16"},
    "fcn8s": {**VGG_LAYERS, **HEADS, **SKIPS, "upsample": "upscore8"},
    "fcn8s_atonce": {**VGG_LAYERS, **HEADS, **SKIPS, "upsample": "upscore8"},
    "fcn_alexnet": {
        **{f"encoder.block{place[0]}.conv{place[1]}": f"conv{number}"
           for number, place in enumerate(((1, 1), (2, 1), (3, 1), (3, 2), (3, 3)), 1)},
        **HEADS,
        "upsample": "upscore",
    },
}  # fmt: skip
"""Their names of our layers, by the network."""


def as_published(network, name):
    """The arrays of a network by their layers' names and the place of a blob, which is 0 for weights, 1 for biases."""
    layers = {}
    for key, parameter in network.parameters_dict().items():
        layer, _, part = key.rpartition(".")
        blobs = layers.setdefault(NAMES[name][layer] if layer else key, {})
        blobs[int(part == "bias")] = parameter.asnumpy()
    return {layer: [blobs[place] for place in sorted(blobs)] for layer, blobs in layers.items()}


def caffemodel(path, layers, version):
    path.write_bytes(files.caffe_file(layers, version))
    return path


def torchfcn_file(path, layers):
    arrays = {}
    for layer, blobs in layers.items():
        if not layer.startswith("scale"):  # which stand in torchfcn's code
            arrays |= {f"{layer}.{part}": blob for part, blob in zip(("weight", "bias"), blobs, strict=False)}
    return files.torch_file(path, arrays)


WRITERS = {
    "caffe of 2015": lambda path, layers: caffemodel(path, layers, version=2),
    "caffe of 2014": lambda path, layers: caffemodel(path, layers, version=1),
    "torchfcn": torchfcn_file,
}


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        *((name, writer) for name in ("fcn32s", "fcn8s") for writer in ("caffe of 2014", "torchfcn")),
        *(("fcn16s", writer) for writer in ("caffe of 2015", "torchfcn")),
        *(("fcn8s_atonce", writer) for writer in ("caffe of 2015", "torchfcn")),
        ("fcn_alexnet", "caffe of 2015"),
    ],
)
def test_the_logits_of_a_picture_are_those_of_the_published_weights(tmp_path, name, writer):
    theirs, ours = random_network(name), random_network(name)
    layers = as_published(theirs, name)
    path = WRITERS[writer](tmp_path / "weights", layers)
    for parameter in ours.get_parameters():  # so that whatever is left at its initial value is wrong
        if not parameter.name.startswith("scale"):
            parameter.set_data(Tensor(np.full(parameter.shape, 0.5, np.float32)))
    done = initialise(ours, path, "init_from", mean=[0.5] * 3, std=[*STD], take_mean=True)
    assert {row.action for row in done.rows} <= {"taken", "reshaped", "converted", "initial"}
    left = {row.name for row in done.rows if row.action == "initial"}
    assert left == ({"scale_pool3", "scale_pool4"} if (name, writer) == ("fcn8s_atonce", "torchfcn") else set())
    np.testing.assert_allclose(done.mean, CAFFE[::-1] / 255, atol=1e-6)

    expected = theirs(Tensor((255 * PICTURE[::-1] - CAFFE[:, None, None])[None].astype(np.float32))).asnumpy()
    pixels = (PICTURE - np.reshape(done.mean, (3, 1, 1))) / STD[:, None, None]
    found = ours(Tensor(pixels[None].astype(np.float32))).asnumpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
