"""Batch norm, ReLU and pooling against their definitions in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import assert_same_bits_on_any_number_of_threads, load


@pytest.fixture(scope="module")
def native():
    return load()


class Reference:
    """Ioffe & Szegedy 2015, algorithm 1, followed by ReLU and perhaps 2x2 max-pooling, with their gradients."""

    def __init__(self, x, gamma, beta, pool):
        x, gamma, beta = (array.astype(np.float64) for array in (x, gamma, beta))
        self.mean, self.variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
        self.gamma, self.pool = gamma[:, None, None], pool
        self.deviation = np.sqrt(self.variance + 1e-5)[:, None, None]
        self.x_hat = (x - self.mean[:, None, None]) / self.deviation
        self.normalised = self.x_hat * self.gamma + beta[:, None, None]
        self.rectified = np.maximum(self.normalised, 0)
        self.output = self.windows(self.rectified).max(-1) if pool else self.rectified

    @staticmethod
    def windows(x):
        batch, channels, height, width = x.shape
        x = x[:, :, : height // 2 * 2, : width // 2 * 2].reshape(batch, channels, height // 2, 2, width // 2, 2)
        return x.transpose(0, 1, 2, 4, 3, 5).reshape(batch, channels, height // 2, width // 2, 4)

    def is_decided(self, margin=1e-3):
        """Return whether each output's gradient is beyond rounding: not at the ReLU's edge nor between close values."""
        if not self.pool:
            return np.abs(self.normalised) > margin
        second, first = np.moveaxis(np.sort(self.windows(self.normalised))[..., -2:], -1, 0)
        return (np.abs(first) > margin) & (first - second > margin)

    def backward(self, gradient):
        if self.pool:
            chosen = np.zeros_like(self.rectified)
            first = self.windows(self.rectified).argmax(-1)
            for index in np.ndindex(first.shape):
                row, column = divmod(first[index], 2)
                chosen[index[0], index[1], 2 * index[2] + row, 2 * index[3] + column] = gradient[index]
            gradient = chosen
        gradient = gradient * (self.rectified > 0)
        beta, gamma = gradient.sum((0, 2, 3)), (gradient * self.x_hat).sum((0, 2, 3))
        mean = gradient.mean((0, 2, 3), keepdims=True)
        product = (gradient * self.x_hat).mean((0, 2, 3), keepdims=True)
        return self.gamma / self.deviation * (gradient - mean - self.x_hat * product), np.stack([beta, gamma])


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * max(1.0, np.abs(expected).max()))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 20), st.integers(2, 45)),
    pool=st.booleans(),
    offset=st.sampled_from([0.0, -1.0, 30.0]),
)
def test_any_shape(native, shape, pool, offset):
    random = np.random.default_rng(0)
    channels = shape[1]
    x = random.standard_normal(shape, dtype=np.float32) + np.float32(offset)
    gamma, beta = random.standard_normal((2, channels), dtype=np.float32)
    reference = Reference(x, gamma, beta, pool)
    gradient = random.standard_normal(reference.output.shape, dtype=np.float32) * reference.is_decided()
    expected_gradient, expected_sums = reference.backward(gradient)
    name = "norm_relu_pool" if pool else "norm_relu"

    statistics = native("channel_statistics", [x], (2, channels))
    assert_close(statistics, np.stack([reference.mean, reference.variance]))
    assert_close(native(name, [x, statistics, gamma, beta], reference.output.shape), reference.output)
    sums = native(f"{name}_sums", [x, gradient, statistics, gamma, beta], (2, channels))
    assert_close(sums, expected_sums)
    found = native(f"{name}_input_gradient", [x, gradient, statistics, gamma, beta, sums], shape)
    assert_close(found, expected_gradient)


def test_a_long_sum_keeps_its_digits(native):
    """A sum of a million equal values in single precision would be wrong in the third digit."""
    x = np.full((1, 1, 1024, 1024), 0.1, np.float32)
    x[0, 0, 0, 0] = 10.0
    mean, variance = native("channel_statistics", [x], (2, 1))[:, 0]
    assert mean == pytest.approx(x.astype(np.float64).mean(), rel=1e-5)
    assert variance == pytest.approx(x.astype(np.float64).var(), rel=1e-5)


def test_the_first_of_equal_values_gets_the_gradient(native):
    x = np.zeros((1, 1, 2, 4), np.float32)
    x[0, 0, :, 2:] = [[1, 1], [1, 1]]
    statistics, gamma, beta = np.array([[0.0], [1.0]]), np.ones(1), np.full(1, 0.5)
    zeros = np.zeros((2, 1))
    found = native("norm_relu_pool_input_gradient", [x, [[[[3.0, 5.0]]]], statistics, gamma, beta, zeros], x.shape)
    np.testing.assert_allclose(found[0, 0], [[3, 0, 5, 0], [0, 0, 0, 0]], rtol=1e-5)


@pytest.mark.parametrize("pool", [False, True])
def test_the_same_to_the_bit_on_any_number_of_threads(native, pool):
    random = np.random.default_rng(0)
    x, gradient = random.standard_normal((2, 3, 9, 65, 70), dtype=np.float32)
    gamma, beta = random.standard_normal((2, 9), dtype=np.float32)
    name, gradient = ("norm_relu_pool", gradient[:, :, :32, :35]) if pool else ("norm_relu", gradient)

    def compute():
        statistics = native("channel_statistics", [x], (2, 9))
        sums = native(f"{name}_sums", [x, gradient, statistics, gamma, beta], (2, 9))
        found = native(f"{name}_input_gradient", [x, gradient, statistics, gamma, beta, sums], x.shape)
        return statistics, sums, found

    # With seven or more threads, the planes of a channel are shared.
    assert_same_bits_on_any_number_of_threads(native, compute, (1, 3, 7, 16))
