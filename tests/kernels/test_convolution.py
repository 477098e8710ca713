"""The 3x3 convolution against its definition in double precision."""

import numpy as np
import pytest
from convolution_definition import convolution, input_gradient, weight_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from native import TARGET, assert_same_bits_on_any_number_of_threads, load


@pytest.fixture(scope="module")
def native():
    return load()


def example(shape, outputs, seed=0):
    random = np.random.default_rng(seed)
    images = random.standard_normal(shape, dtype=np.float32)
    weight = random.standard_normal((outputs, shape[1], 3, 3), dtype=np.float32)
    gradient = random.standard_normal((shape[0], outputs, *shape[2:]), dtype=np.float32)
    return images, weight, gradient


def assert_close(found, expected):
    # Winograd's F(4x4, 3x3) loses about two of the seven digits of single precision.
    assert np.abs(found - expected).max() <= 3e-4 * max(1.0, np.abs(expected).std())


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 35), st.integers(1, 24), st.integers(1, 90))


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, outputs=st.integers(1, 35))
def test_any_shape(native, shape, outputs):
    images, weight, gradient = example(shape, outputs)
    assert_close(native("conv3x3", [images, weight], gradient.shape), convolution(images, weight))
    assert_close(native("conv3x3_input_gradient", [gradient, weight], shape), input_gradient(gradient, weight))
    assert_close(
        native("conv3x3_weight_gradient", [images, gradient], weight.shape), weight_gradient(images, gradient, 3)
    )


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 70)),
    outputs=st.integers(1, 20),
)
def test_few_channels_keep_their_digits(native, shape, outputs):
    """They are convolved by the definition, and not by Winograd's algorithm."""
    assert_few_channels_keep_their_digits(native, shape, outputs)


def test_few_channels_of_large_images_keep_their_digits(native):
    """There are more strips of rows than sums that are added up in the end."""
    assert_few_channels_keep_their_digits(native, (2, 4, 270, 300), 5)


def assert_few_channels_keep_their_digits(native, shape, outputs):
    images, weight, gradient = example(shape, outputs)
    expected = convolution(images, weight)
    assert np.abs(native("conv3x3", [images, weight], gradient.shape) - expected).max() <= 2e-5
    found = native("conv3x3_weight_gradient", [images, gradient], weight.shape)
    terms = shape[0] * shape[2] * shape[3]
    assert np.abs(found - weight_gradient(images, gradient, 3)).max() <= 3e-6 * np.sqrt(terms)


@pytest.mark.parametrize(("channels", "size"), [(64, 64), (128, 24)])
def test_many_channels_and_tiles(native, channels, size):
    """There are more tiles than fit into a block, and the sums are shared by threads or not."""
    images, weight, gradient = example((2, channels, size, size), channels)
    scale = 1 / np.sqrt(9 * channels)
    assert_close(native("conv3x3", [images, weight * scale], gradient.shape), convolution(images, weight * scale))
    expected = weight_gradient(images, gradient, 3)
    found = native("conv3x3_weight_gradient", [images, gradient], weight.shape)
    assert np.abs(found - expected).max() <= 3e-4 * expected.std()


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ((2, 40, 50, 70), 24),
        ((2, 3, 37, 45), 7),  # a strip of rows at a time
        ((2, 40, 9, 13), 24),  # fewer tiles than many threads need
        ((1, 260, 13, 12), 270),  # few tiles and many kernels
    ],
)
def test_the_same_to_the_bit_on_any_number_of_threads(native, shape, outputs):
    images, weight, gradient = example(shape, outputs)

    def compute():
        return (
            native("conv3x3", [images, weight], gradient.shape),
            native("conv3x3_input_gradient", [gradient, weight], images.shape),
            native("conv3x3_weight_gradient", [images, gradient], weight.shape),
        )

    assert_same_bits_on_any_number_of_threads(native, compute, (1, 2, 7, 16))


@pytest.mark.skipif(TARGET is not None, reason="it is the memory of this process")
def test_memory_is_used_again(native):
    """Twenty more calls take no more memory than the first twenty."""
    import psutil

    images, weight, gradient = example((1, 64, 64, 64), 64)
    resident = []
    for _ in range(2):
        for _ in range(20):
            native("conv3x3_weight_gradient", [images, gradient], weight.shape)
        resident.append(psutil.Process().memory_info().rss)
    assert resident[1] - resident[0] < 2**20
