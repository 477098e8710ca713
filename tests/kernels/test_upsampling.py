"""The upsampling against the definition of a transposed convolution in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import assert_same_bits_on_any_number_of_threads, load
from numpy.lib.stride_tricks import sliding_window_view


@pytest.fixture(scope="module")
def native():
    return load()


def product(subscripts, first, second):
    return np.einsum(subscripts, first.astype(np.float64), second.astype(np.float64), optimize=True)


def reached(gradient, stride):
    """Return what each input pixel's kernel reaches, N x O x H x W x 2s x 2s, with zeros beyond the edge."""
    half = stride // 2
    padded = np.pad(gradient, ((0, 0), (0, 0), (half, half), (half, half)))
    return sliding_window_view(padded, (2 * stride, 2 * stride), axis=(2, 3))[:, :, ::stride, ::stride]


def upsampling(images, weight):
    """Each input pixel stamps the kernel, times its value, at stride s; then s/2 is cropped on every side."""
    batch, _, height, width = images.shape
    stride = weight.shape[2] // 2
    half = stride // 2
    stamps = product("nihw,iorc->nohwrc", images, weight)
    stamped = np.zeros((batch, weight.shape[1], (height + 1) * stride, (width + 1) * stride))
    for row, column in np.ndindex(2 * stride, 2 * stride):
        stamped[:, :, row::stride, column::stride][:, :, :height, :width] += stamps[..., row, column]
    return stamped[:, :, half:-half, half:-half]


def input_gradient(gradient, weight):
    return product("nohwrc,iorc->nihw", reached(gradient, weight.shape[2] // 2), weight)


def weight_gradient(images, gradient, stride):
    return product("nihw,nohwrc->iorc", images, reached(gradient, stride))


def example(shape, outputs, stride, seed=0):
    random = np.random.default_rng(seed)
    images = random.standard_normal(shape, dtype=np.float32)
    weight = random.standard_normal((shape[1], outputs, 2 * stride, 2 * stride), dtype=np.float32)
    larger = (shape[0], outputs, shape[2] * stride, shape[3] * stride)
    return images, weight, random.standard_normal(larger, dtype=np.float32)


def all_three(native, images, weight, gradient):
    return (
        native("upsampling", [images, weight], gradient.shape),
        native("upsampling_input_gradient", [gradient, weight], images.shape),
        native("upsampling_weight_gradient", [images, gradient, weight], weight.shape),
    )


def assert_correct(native, images, weight, gradient):
    expected = (
        upsampling(images, weight),
        input_gradient(gradient, weight),
        weight_gradient(images, gradient, weight.shape[2] // 2),
    )
    for found, exact in zip(all_three(native, images, weight, gradient), expected, strict=True):
        assert np.abs(found - exact).max() <= 2e-5 * max(1.0, np.abs(exact).std())


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 22), st.integers(1, 7), st.integers(1, 19))


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, outputs=st.integers(1, 22), stride=st.sampled_from([2, 4, 6, 8, 12, 16]))
def test_any_shape(native, shape, outputs, stride):
    assert_correct(native, *example(shape, outputs, stride))


@pytest.mark.parametrize("stride", [2, 4, 6, 8, 16, 32])
@pytest.mark.parametrize("batch", [1, 3])
def test_one_pixel(native, stride, batch):
    assert_correct(native, *example((batch, 2, 1, 1), 2, stride))


@pytest.mark.parametrize(("channels", "size", "stride"), [(5, 4, 32), (5, 90, 2), (70, 9, 8)])
def test_more_than_one_task(native, channels, size, stride):
    """There are several groups of panels, several parts of the sums, or many tiles."""
    assert_correct(native, *example((2, channels, size, size + 3), channels, stride))


def test_no_image(native):
    images, weight, gradient = example((0, 3, 4, 5), 2, 4)
    forward, of_input, of_weight = all_three(native, images, weight, gradient)
    assert forward.shape == gradient.shape
    assert of_input.shape == images.shape
    np.testing.assert_array_equal(of_weight, 0)


@pytest.mark.parametrize("stride", [2, 8, 32])
def test_the_same_to_the_bit_on_any_number_of_threads(native, stride):
    given = example((2, 21, 64 // stride, 90 // stride), 21, stride)
    assert_same_bits_on_any_number_of_threads(native, lambda: all_three(native, *given))


@pytest.mark.parametrize("stride", [2, 16])
def test_as_pytorch_has_it(native, stride):
    torch = pytest.importorskip("torch")
    arrays = example((3, 4, 5, 7), 6, stride)
    images, weight = (torch.from_numpy(array).requires_grad_() for array in arrays[:2])
    expected = torch.nn.functional.conv_transpose2d(images, weight, stride=stride, padding=stride // 2)
    expected.backward(torch.from_numpy(arrays[2]))
    references = (expected.detach(), images.grad, weight.grad)
    for found, reference in zip(all_three(native, *arrays), references, strict=True):
        np.testing.assert_allclose(found, reference.numpy(), atol=2e-5 * max(1.0, float(reference.std())))
