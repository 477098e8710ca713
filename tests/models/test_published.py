"""The networks that FCN's authors published compute what their definitions say, written anew in numpy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from published_definition import STRIDES, published, random_network

from fcnlab.models import build_model

NAMES = ("fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce", "fcn_alexnet")


def crop_offset(*layers):
    """Return where a map begins in the images, as Caffe's ``coord_map`` derives it.

    A layer is (kernel, stride, padding), a stride below 1 being that of a deconvolution. Each turns the coordinate x
    of its output into a * x + b of its input.
    """
    scale, offset = 1.0, 0.0
    for kernel, stride, padding in reversed(layers):
        reach = (kernel - 1) / 2 - padding
        if stride >= 1:
            scale, offset = stride * scale, stride * offset + reach
        else:
            scale, offset = stride * scale, (offset - reach) * stride
    assert scale == 1
    return -round(offset)


def deconvolution(stride, kernel=None):
    return (kernel or 2 * stride, 1 / stride, 0)


POOL = (2, 2, 0)
FC6 = (7, 1, 0)
VGG = [(3, 1, 100), POOL, POOL, POOL, POOL, POOL]  # further convolutions with a padding of 1 change nothing
ALEXNET = [(11, 4, 100), (3, 2, 0), (3, 2, 0), (3, 2, 0), (6, 1, 0)]


def test_offsets_are_those_of_the_definitions():
    assert crop_offset(*VGG, FC6, deconvolution(32)) == 19
    assert crop_offset(*VGG, FC6, deconvolution(2), deconvolution(16)) == 27
    assert crop_offset(*VGG, FC6, deconvolution(2), deconvolution(2), deconvolution(8)) == 31
    assert -crop_offset(POOL, FC6, deconvolution(2)) == 5
    assert -crop_offset(POOL, POOL, FC6, deconvolution(2), deconvolution(2)) == 9
    assert crop_offset(*ALEXNET, deconvolution(32, 63)) == 18


def arrays(network):
    return {name: parameter.asnumpy().astype(np.float64) for name, parameter in network.parameters_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_are_those_of_the_definition(name):
    network, random = random_network(name), np.random.default_rng(3)
    image, factors = random.standard_normal((2, 3, 37, 51), dtype=np.float32)
    logits = network(Tensor(image[None])).asnumpy()[0]
    weights = arrays(network)
    expected = published(name, weights, image.astype(np.float64))
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()

    parameters = network.trainable_params()
    found = ms.value_and_grad(lambda x: (network(x) * Tensor(factors[None])).sum(), None, parameters)
    gradients = {
        key.name: value.asnumpy() for key, value in zip(parameters, found(Tensor(image[None]))[1], strict=True)
    }
    for layer in ("encoder.block1", "encoder.block3", "fc", "score"):
        direction = {key: random.standard_normal(weights[key].shape) for key in gradients if key.startswith(layer)}
        assert direction
        losses = []
        for step in (1e-7, -1e-7):
            moved = {key: value + step * direction.get(key, 0) for key, value in weights.items()}
            losses.append((published(name, moved, image.astype(np.float64)) * factors).sum())
        slope = sum((gradients[key] * values).sum() for key, values in direction.items())
        size = np.sqrt(sum((gradients[key] ** 2).sum() for key in direction))
        assert abs(slope - (losses[0] - losses[1]) / 2e-7) < 1e-4 * size * np.sqrt(sum(
            values.size for values in direction.values()))  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_upsampling_is_bilinear_and_fixed(name):
    network = build_model(f"paper/{name}", num_classes=2, width=1 / 64)
    fixed = {parameter.name for parameter in network.get_parameters() if not parameter.requires_grad}
    assert fixed == {key for key in network.parameters_dict() if key.startswith(("upsample", "scale"))}
    weight = network.upsample.weight.asnumpy()
    side = 63 if name == "fcn_alexnet" else 2 * STRIDES[name]
    assert weight.shape == (2, 2, side, side)
    np.testing.assert_allclose(weight[0, 0].sum(), STRIDES[name] ** 2, rtol=1e-6)
    assert not weight[0, 1].any()


@pytest.mark.parametrize("size", [(32, 32), (41, 70), (65, 99)])
@pytest.mark.parametrize("name", ["fcn32s", "fcn_alexnet"])
def test_masks_fit_what_they_drop(name, size):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = build_model(f"paper/{name}", num_classes=2, width=1 / 64).set_train()
    masks = network.dropout_masks((1, 3, *size), np.random.default_rng(0))
    assert network(Tensor(np.zeros((1, 3, *size), np.float32)), Tensor(masks)).shape == (1, 2, *size)


@pytest.mark.parametrize("name", ["fcn8s", "fcn_alexnet"])
def test_a_tile_sees_what_the_whole_image_does(name):
    network = random_network(name)
    image = np.random.default_rng(4).standard_normal((1, 3, 33, 611), dtype=np.float32)
    whole = network(Tensor(image)).asnumpy()
    first, last = (network(Tensor(part)).asnumpy() for part in (image[..., :512], image[..., 64:]))
    np.testing.assert_allclose(first[..., : 512 - 224], whole[..., : 512 - 224], atol=1e-4)
    np.testing.assert_allclose(last[..., 224:], whole[..., 64 + 224 :], atol=1e-4)
