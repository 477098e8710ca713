"""The sum of each channel, over images and pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import assert_same_bits_on_any_number_of_threads, load


@pytest.fixture(scope="module")
def native():
    return load()


def sums(native, values):
    return native("channel_sums", [values], values.shape[1:2])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 70), st.integers(1, 90))
def test_any_shape(images, channels, height, width):
    values = np.random.default_rng(0).standard_normal((images, channels, height, width), dtype=np.float32)
    expected = values.astype(np.float64).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(sums(load(), values), expected, rtol=1e-6, atol=1e-6 * images * height * width)


def test_a_long_sum_keeps_its_digits(native):
    values = np.full((2, 1, 3000, 1000), 0.1, np.float32)  # added up one by one in float32, it is off by 1 %
    assert sums(native, values)[0] == pytest.approx(values.astype(np.float64).sum(), rel=1e-5)


def test_the_same_bits_on_any_number_of_threads(native):
    values = np.random.default_rng(0).standard_normal((3, 50, 70, 61), dtype=np.float32)
    assert_same_bits_on_any_number_of_threads(native, lambda: [sums(native, values)])
