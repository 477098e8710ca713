"""The direct convolution against its definition in double precision."""

import convolution_definition
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import assert_same_bits_on_any_number_of_threads, load


@pytest.fixture(scope="module")
def native():
    return load()


def example(shape, outputs, size, seed=0):
    random = np.random.default_rng(seed)
    images = random.standard_normal(shape, dtype=np.float32)
    weight = random.standard_normal((outputs, shape[1], size, size), dtype=np.float32)
    bias = random.standard_normal(outputs, dtype=np.float32)
    gradient = random.standard_normal((shape[0], outputs, *shape[2:]), dtype=np.float32)
    return images, weight, bias, gradient


def all_three(native, images, weight, bias, gradient):
    return (
        native("direct_convolution", [images, weight, bias], gradient.shape),
        native("direct_convolution_input_gradient", [gradient, weight], images.shape),
        native("direct_convolution_weight_gradient", [images, gradient, weight], weight.shape),
    )


def assert_correct(native, images, weight, bias, gradient, bound=2e-5):
    expected = convolution_definition.all_three(images, weight, bias, gradient)
    for found, exact in zip(all_three(native, images, weight, bias, gradient), expected, strict=True):
        assert np.abs(found - exact).max() <= bound * max(1.0, np.abs(exact).std())


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 50), st.integers(1, 9), st.integers(1, 20))


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, outputs=st.integers(1, 50), size=st.sampled_from([1, 3, 5, 7]))
def test_any_shape(native, shape, outputs, size):
    assert_correct(native, *example(shape, outputs, size))


@pytest.mark.parametrize(("channels", "size"), [(300, 7), (700, 1)])
def test_more_inputs_than_are_packed_at_a_time(native, channels, size):
    # The rounding of a sum grows with the root of its terms, which are up to six times as many as in `test_any_shape`.
    assert_correct(native, *example((2, channels, 4, 5), 33, size), bound=5e-5)


def test_no_image(native):
    images, weight, bias, gradient = example((0, 3, 4, 5), 2, 7)
    forward, of_input, of_weight = all_three(native, images, weight, bias, gradient)
    assert forward.shape == (0, 2, 4, 5)
    assert of_input.shape == images.shape
    np.testing.assert_array_equal(of_weight, 0)


@pytest.mark.parametrize(
    ("channels", "outputs", "size"),
    [(40, 130, 7), (130, 20, 7), (300, 3, 1)],  # where there are few outputs, threads share their pixels
)
def test_the_same_to_the_bit_on_any_number_of_threads(native, channels, outputs, size):
    given = example((3, channels, 12, 11), outputs, size)
    assert_same_bits_on_any_number_of_threads(native, lambda: all_three(native, *given), (1, 2, 7, 16))
    assert_correct(native, *given, bound=5e-5)


def test_as_pytorch_has_it(native):
    torch = pytest.importorskip("torch")
    arrays = example((3, 20, 8, 5), 33, 7)
    images, weight = (torch.from_numpy(array).requires_grad_() for array in arrays[:2])
    expected = torch.nn.functional.conv2d(images, weight, torch.from_numpy(arrays[2]), padding=3)
    expected.backward(torch.from_numpy(arrays[3]))
    references = (expected.detach(), images.grad, weight.grad)
    for found, reference in zip(all_three(native, *arrays), references, strict=True):
        np.testing.assert_allclose(found, reference.numpy(), atol=2e-5 * max(1.0, float(reference.std())))
