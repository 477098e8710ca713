"""A convolution that is normalised before it is written has the results of the separate operators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import assert_same_bits_on_any_number_of_threads, load


@pytest.fixture(scope="module")
def native():
    return load()


def example(shape, outputs, seed=0):
    random = np.random.default_rng(seed)
    statistics = np.stack([random.standard_normal(outputs), random.uniform(0.1, 4, outputs)])
    return [
        random.standard_normal(shape, dtype=np.float32),
        random.standard_normal((outputs, shape[1], 3, 3), dtype=np.float32),
        *(array.astype(np.float32) for array in (statistics, *random.standard_normal((2, outputs)))),
    ]


def shape_of(arrays, pool):
    images, weight = arrays[:2]
    side = 2 if pool else 1
    return images.shape[0], weight.shape[0], images.shape[2] // side, images.shape[3] // side


def name(pool):
    return "norm_relu_pool" if pool else "norm_relu"


def separate(native, arrays, pool):
    images, weight, *normalisation = arrays
    features = native("conv3x3", [images, weight], shape_of(arrays, False))
    return native(name(pool), [features, *normalisation], shape_of(arrays, pool))


def together(native, arrays, pool):
    return native(f"conv3x3_{name(pool)}", arrays, shape_of(arrays, pool))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 35), st.integers(1, 35), st.integers(2, 24), st.integers(2, 90), st.booleans())
def test_any_shape(images, channels, outputs, height, width, pool):
    arrays = example((images, channels, height, width), outputs)
    expected = separate(load(), arrays, pool)
    # Whether a product and a sum are rounded once or twice is the compiler's choice.
    np.testing.assert_allclose(together(load(), arrays, pool), expected, rtol=1e-6, atol=1e-6 * expected.max())


@pytest.mark.parametrize("pool", [False, True], ids=["norm", "pool"])
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 64, 64, 64), (1, 128, 10, 14)])
def test_many_tiles_on_any_number_of_threads(native, shape, pool):
    arrays = example(shape, 48)
    expected = separate(native, arrays, pool)
    np.testing.assert_allclose(together(native, arrays, pool), expected, rtol=1e-6, atol=1e-6 * expected.max())
    assert_same_bits_on_any_number_of_threads(native, lambda: [together(native, arrays, pool)])


@pytest.mark.parametrize("pool", [False, True], ids=["norm", "pool"])
@pytest.mark.parametrize("operators", [separate, together])
def test_what_is_no_number_stays_none(native, operators, pool):
    arrays = example((1, 3, 8, 8), 5)
    arrays[1][2] = np.nan  # the weights of a channel, as after a step that diverged
    found = operators(native, arrays, pool)
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(np.delete(found, 2, axis=1)).all()
