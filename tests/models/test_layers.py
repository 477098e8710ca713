from contextlib import nullcontext

import mindspore as ms
import numpy as np
import pytest
from conftest import MODES
from mindspore import Tensor, nn

from fcnlab.kernels import stock_operators
from fcnlab.models.layers import (
    BilinearUpsampling,
    GroupNormRelu,
    HeadConv2d,
    bilinear_kernel,
    group_count,
    norm_alone,
)

OPERATORS = pytest.mark.parametrize("operators", [nullcontext, stock_operators], ids=["compiled", "stock"])


class Weighted(nn.Cell):
    """A weighted sum of a layer's output, so that the gradient of every element has a factor of its own."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, features, factors):
        return (self.layer(features) * factors).sum()


def gradients(layer, features, factors):
    """Return the gradients with respect to the input and to each parameter."""
    function = ms.grad(Weighted(layer), 0, weights=ms.ParameterTuple(layer.trainable_params()))
    of_input, of_parameters = function(features, factors)
    return [of_input.asnumpy(), *(gradient.asnumpy() for gradient in of_parameters)]


def normal(generator, *shape):
    return Tensor(generator.standard_normal(shape).astype(np.float32))


@MODES
@OPERATORS
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_unfold_convolution_is_a_convolution(mode, operators, kernel_size):
    ms.set_context(mode=mode)
    generator = np.random.default_rng(kernel_size)
    weight, bias = normal(generator, 4, 3, kernel_size, kernel_size), normal(generator, 4)
    with operators():
        layer = HeadConv2d(3, 4, kernel_size)
    layer.weight.set_data(weight)
    layer.bias.set_data(bias)
    convolution = nn.Conv2d(
        3, 4, kernel_size, pad_mode="pad", padding=kernel_size // 2, has_bias=True, weight_init=weight, bias_init=bias
    )
    features, factors = normal(generator, 2, 3, 5, 9), normal(generator, 2, 4, 5, 9)
    np.testing.assert_allclose(layer(features).asnumpy(), convolution(features).asnumpy(), atol=1e-4)
    expected = gradients(convolution, features, factors)
    for actual, reference in zip(gradients(layer, features, factors), expected, strict=True):
        np.testing.assert_allclose(actual, reference, atol=1e-4)


def test_unfold_convolution_looks_like_a_convolution_to_a_checkpoint():
    parameters = {parameter.name: parameter.shape for parameter in HeadConv2d(3, 4, 7).get_parameters()}
    assert parameters == {"weight": (4, 3, 7, 7), "bias": (4,)}


@pytest.mark.parametrize("kernel_size", [0, -1])
def test_unfold_convolution_refuses_a_kernel_of_nothing(kernel_size):
    with pytest.raises(ValueError, match=f"kernel_size must be positive, not {kernel_size}"):
        HeadConv2d(3, 4, kernel_size)


@MODES
def test_an_even_kernel_sees_one_cell_more_below_and_on_the_right(mode):
    ms.set_context(mode=mode)
    layer = HeadConv2d(1, 1, 6)
    layer.weight.set_data(Tensor(np.ones((1, 1, 6, 6), np.float32)))
    layer.set_inputs(Tensor(shape=[None, 1, None, None], dtype=ms.float32))
    one = np.zeros((1, 1, 9, 8), np.float32)
    one[0, 0, 5, 4] = 1
    seen_by = layer(Tensor(one)).asnumpy()[0, 0]
    expected = np.zeros((9, 8))
    expected[5 - 3 : 5 + 3, 4 - 3 : 4 + 3] = 1
    np.testing.assert_array_equal(seen_by, expected)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (7, 1), (48, 24), (64, 32), (96, 32), (100, 25), (2048, 32)],
)
def test_groups_are_as_many_as_leave_two_channels_each(channels, groups):
    assert group_count(channels) == groups


@MODES
@pytest.mark.parametrize("dynamic", [False, True])
def test_group_norm_is_its_formula(mode, dynamic):
    ms.set_context(mode=mode)
    random = np.random.default_rng(0)
    layer, plain = GroupNormRelu(8, pool=False), norm_alone("group", 8)
    gamma, beta = random.standard_normal((2, 8)).astype(np.float32)
    for cell in (layer, plain):
        cell.gamma.set_data(Tensor(gamma))
        cell.beta.set_data(Tensor(beta))
        if dynamic:
            cell.set_inputs(Tensor(shape=[None, 8, None, None], dtype=ms.float32))
    for shape in ((2, 8, 5, 7), (1, 8, 1, 2)):
        features = (3 + 2 * random.standard_normal(shape)).astype(np.float32)
        groups = features.astype(np.float64).reshape(shape[0], 4, 2, *shape[2:])
        mean = groups.mean(axis=(2, 3, 4), keepdims=True)
        normal = ((groups - mean) / np.sqrt(groups.var(axis=(2, 3, 4), keepdims=True) + 1e-5)).reshape(shape)
        expected = normal * gamma[:, None, None] + beta[:, None, None]
        np.testing.assert_allclose(plain(Tensor(features)).asnumpy(), expected, atol=1e-5)
        np.testing.assert_allclose(layer(Tensor(features)).asnumpy(), np.maximum(expected, 0), atol=1e-5)


def test_the_gradient_of_group_norm_is_that_of_its_formula():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    random = np.random.default_rng(1)
    layer = norm_alone("group", 4)
    features, factors = normal(random, 1, 4, 4, 6), normal(random, 1, 4, 4, 6)
    of_input, of_gamma, of_beta = gradients(layer, features, factors)
    step = 1e-2

    def value(features, gamma, beta):
        layer.gamma.set_data(Tensor(gamma.astype(np.float32)))
        layer.beta.set_data(Tensor(beta.astype(np.float32)))
        return float((layer(Tensor(features.astype(np.float32))) * factors).sum().asnumpy())

    start = [features.asnumpy(), np.ones(4), np.zeros(4)]
    for place, gradient in enumerate((of_input, of_gamma, of_beta)):
        direction = random.standard_normal(gradient.shape)
        moved = [[*start[:place], start[place] + sign * step * direction, *start[place + 1 :]] for sign in (1, -1)]
        slope = (value(*moved[0]) - value(*moved[1])) / (2 * step)
        assert (gradient * direction).sum() == pytest.approx(slope, rel=0.01, abs=0.01)


def test_bilinear_kernel_of_stride_2():
    profile = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = bilinear_kernel(2, 2)
    assert kernel.shape == (2, 2, 4, 4)
    assert kernel.dtype == np.float32
    for output, of_output in enumerate(kernel):
        for source, plane in enumerate(of_output):
            np.testing.assert_array_equal(plane, np.outer(profile, profile) if output == source else 0)


def transposed_convolution(features, weight, stride):
    """Each input pixel stamps the kernel, times its value, at stride s; then s/2 is cropped on every side."""
    batch, channels, height, width = features.shape
    stamped = np.zeros((batch, channels, (height + 1) * stride, (width + 1) * stride))
    for image, row, column in np.ndindex(batch, height, width):
        window = np.s_[image, :, row * stride : (row + 2) * stride, column * stride : (column + 2) * stride]
        stamped[window] += np.einsum("i,iokl->okl", features[image, :, row, column], weight)
    margin = stride // 2
    return stamped[:, :, margin:-margin, margin:-margin]


@MODES
@OPERATORS
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_upsampling_is_a_transposed_convolution(mode, operators, stride):
    ms.set_context(mode=mode)
    generator = np.random.default_rng(stride)
    with operators():
        layer = BilinearUpsampling(3, stride)
    weight = normal(generator, 3, 3, 2 * stride, 2 * stride)
    layer.weight.set_data(weight)
    features = normal(generator, 2, 3, 4, 5)
    output = layer(features).asnumpy()
    assert output.shape == (2, 3, 4 * stride, 5 * stride)
    expected = transposed_convolution(features.asnumpy(), weight.asnumpy(), stride)
    np.testing.assert_allclose(output, expected, atol=1e-4)


@MODES
def test_compiled_upsampling_has_the_gradients_of_the_stock_one(mode):
    ms.set_context(mode=mode)
    generator = np.random.default_rng(0)
    weight, features = normal(generator, 3, 3, 8, 8), normal(generator, 2, 3, 4, 5)
    factors = normal(generator, 2, 3, 16, 20)
    found = []
    for operators in (nullcontext, stock_operators):
        with operators():
            layer = BilinearUpsampling(3, 4)
        layer.weight.set_data(weight)
        found.append(gradients(layer, features, factors))
    for actual, reference in zip(*found, strict=True):
        np.testing.assert_allclose(actual, reference, atol=1e-4)


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
def test_upsampling_starts_as_bilinear_interpolation(stride):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    layer = BilinearUpsampling(2, stride)
    rows, columns = np.mgrid[:4, :6].astype(np.float32)
    features = np.stack([np.ones_like(rows), 1 + 3 * rows - 2 * columns])[None]
    output = layer(Tensor(features)).asnumpy()
    # Pixel centres: output pixel p lies at (p + 1/2) / s - 1/2 of the input. Beyond the outermost input centres, the
    # zeros outside mix in.
    fine_rows, fine_columns = (np.mgrid[: 4 * stride, : 6 * stride] + 0.5) / stride - 0.5
    margin = stride // 2
    inside = np.s_[margin:-margin, margin:-margin]
    np.testing.assert_allclose(output[0, 0][inside], 1, rtol=1e-5)
    np.testing.assert_allclose(output[0, 1][inside], (1 + 3 * fine_rows - 2 * fine_columns)[inside], atol=1e-4)


@pytest.mark.parametrize("stride", [0, 1, 3])
def test_upsampling_refuses_an_odd_stride(stride):
    with pytest.raises(ValueError, match=f"stride must be even and positive, not {stride}"):
        BilinearUpsampling(2, stride)
