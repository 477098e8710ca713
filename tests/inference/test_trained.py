"""Label maps of plain images: they are prepared as in training, and tiles leave no seam."""

import numpy as np
import pytest
from mindspore import Tensor
from tiny_network import ARCH, MEAN, METADATA, STD, save_checkpoint, some_image

import fcnlab
from fcnlab.core.errors import CheckpointError
from fcnlab.inference.forward import ForwardPass
from fcnlab.models.checkpoint import save_weights


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return fcnlab.load(save_checkpoint(tmp_path_factory.mktemp("trained") / "best.safetensors"))


def logits_by_hand(network, image):
    """Return the logits of the network for an image that is normalised by hand."""
    pixels = (image / 255 - np.array(MEAN)) / np.array(STD)
    return network(Tensor(pixels.transpose(2, 0, 1)[np.newaxis].astype(np.float32))).asnumpy()[0]


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


@pytest.mark.parametrize("size", [(64, 96), (97, 130)])
def test_a_plain_image_gets_what_the_network_says_of_it(network, size):
    image = some_image(*size)
    expected = logits_by_hand(network, image)
    np.testing.assert_allclose(network.logits(image), expected, atol=1e-4)
    np.testing.assert_allclose(network.probabilities(image), softmax(expected), atol=1e-5)
    labels = network.predict(image)
    assert (labels.dtype, labels.shape) == (np.uint8, size)
    assert len(np.unique(labels)) > 1
    assert (labels == expected.argmax(axis=0)).mean() > 0.999  # ties of rounding


def test_tiles_leave_no_seam(network):
    image = some_image(540, 530)  # four tiles
    expected = logits_by_hand(network, image)
    tiled = network.logits(image, tile=512)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(tiled, expected, atol=1e-4)
    assert (network.predict(image, tile=512) == expected.argmax(axis=0)).mean() > 0.9999


def test_a_smaller_overlap_would_leave_one(network, monkeypatch):
    monkeypatch.setattr("fcnlab.inference.trained.overlap", lambda kernel_size, reach: 96)
    image = some_image(540, 530)
    assert np.abs(network.logits(image, tile=480) - logits_by_hand(network, image)).max() > 1e-3


def test_an_image_below_the_networks_smallest_is_padded(network):
    image = some_image(64, 64)[:9, :20]
    padded = np.zeros((1, 3, 32, 32), np.float32)
    padded[0, :, :9, :20] = ((image / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    expected = network(Tensor(padded)).asnumpy()[0, :, :9, :20]
    np.testing.assert_allclose(network.logits(image), expected, atol=1e-4)


def test_grey_is_grey_in_all_channels(network):
    image = some_image(64, 64)[..., 0]
    np.testing.assert_array_equal(network.predict(image), network.predict(np.stack([image] * 3, axis=-1)))


def test_flip_averages_both_views(network):
    image = some_image(64, 96)
    views = [
        softmax(logits_by_hand(network, image)),
        softmax(logits_by_hand(network, image[:, ::-1]))[..., ::-1],
    ]
    expected = np.mean(views, axis=0)
    np.testing.assert_allclose(network.probabilities(image, flip=True), expected, atol=1e-5)
    assert np.abs(views[0] - views[1]).max() > 1e-3
    assert (network.predict(image, flip=True) == expected.argmax(axis=0)).mean() > 0.999


def test_scales_are_averaged_at_the_images_own_size(network):
    image = some_image(64, 96)
    both = network.probabilities(image, scales=[1.0, 1.5])
    once = network.probabilities(image)
    other = network.probabilities(image, scales=[1.5])
    assert other.shape == (3, 64, 96)
    np.testing.assert_allclose(both, (once + other) / 2, atol=1e-5)
    np.testing.assert_allclose(both.sum(axis=0), 1, atol=1e-5)
    assert network.probabilities(image, scales=[0.5, 2.0], flip=True, dtype=np.float16).dtype == np.float16


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40, 3), np.float32),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((1, 40, 40, 3), np.uint8),
        np.zeros((0, 40), np.uint8),
    ],
)
def test_another_kind_of_array_is_refused(network, image):
    with pytest.raises(ValueError, match=r"must be H x W x 3 \(RGB\) or H x W \(grey\) of uint8"):
        network.predict(image)


def test_it_is_still_a_cell(network):
    assert not network.training
    assert "fc6.weight" in network.parameters_dict()
    assert network.class_names == METADATA["class_names"]
    assert network.palette.tolist() == METADATA["palette"]
    with pytest.raises(ValueError, match="at least 32 x 32"):
        network(Tensor(np.zeros((1, 3, 16, 64), np.float32)))


def test_a_checkpoint_without_normalisation_gives_logits_but_no_labels(tmp_path):
    save_weights(tmp_path / "weights.safetensors", fcnlab.build_model(**ARCH), {"arch": ARCH})
    network = fcnlab.load(tmp_path / "weights.safetensors")
    assert network(Tensor(np.zeros((1, 3, 32, 32), np.float32))).shape == (1, 3, 32, 32)
    with pytest.raises(CheckpointError, match="does not say its normalisation"):
        network.predict(np.zeros((32, 32), np.uint8))


def test_a_size_that_comes_often_gets_a_graph_of_its_own(network):
    forward = ForwardPass(network.network)
    random = np.random.default_rng(0)
    first, second = (random.standard_normal((1, 3, *size)).astype(np.float32) for size in ((32, 64), (64, 32)))
    expected = {size: network(Tensor(size_images)).asnumpy() for size, size_images in ((0, first), (1, second))}
    graphs = []
    for index, images in ((0, first), (1, second), (1, second), (1, second), (0, first)):
        np.testing.assert_allclose(forward(images, "logits"), expected[index], atol=1e-4)
        graphs.append((len(forward._one_size), len(forward._any_size)))
    assert graphs == [(1, 0), (1, 1), (1, 1), (2, 1), (2, 1)]
    assert not forward._has_room((1, 3, 1408, 1408))  # their memory adds up
    assert forward._has_room((1, 3, 1024, 1024))


def test_it_is_short_where_it_is_shown(network):
    assert repr(network) == f"TrainedNetwork(fcn8s, 3 classes (background, cell, Hülle), '{network.source}')"
    table = network._repr_html_()
    assert "rgb(250,120,10)" in table
    assert "Hülle" in table
    assert "width 0.03125" in table
