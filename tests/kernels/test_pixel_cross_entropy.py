"""The cross-entropy of pixels and its gradient against their formulas in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import assert_same_bits_on_any_number_of_threads, load

EPSILON = np.finfo(np.float32).eps


@pytest.fixture(scope="module")
def native():
    return load()


def both(native, logits, labels, gradient):
    """Return the losses and the gradient of the logits; an int32 array is passed as the floats of its bits."""
    bits = np.ascontiguousarray(labels, np.int32).view(np.float32)
    return (
        native("cross_entropy", [logits, bits], labels.shape),
        native("cross_entropy_logits_gradient", [logits, bits, gradient], logits.shape),
    )


def by_formula(logits, labels, gradient):
    """Return -log softmax of the label, and (softmax - one-hot) times the gradient, with 0 where it is no class."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    counted = (labels >= 0) & (labels < logits.shape[1])
    one_hot = np.arange(logits.shape[1]).reshape(1, -1, 1, 1) == labels[:, None]
    losses = -(one_hot * logarithms).sum(axis=1)
    return losses, (np.exp(logarithms) - one_hot) * (gradient * counted)[:, None]


def example(shape, scale=4.0, seed=0):
    random = np.random.default_rng(seed)
    logits = (scale * random.standard_normal(shape)).astype(np.float32)
    pixels = (shape[0], *shape[2:])
    labels = random.integers(0, shape[1], pixels).astype(np.int32)
    labels[random.random(pixels) < 0.2] = 255 if shape[1] <= 255 else -1
    return logits, labels, random.standard_normal(pixels, dtype=np.float32)


def assert_follows_the_formulas(native, logits, labels, gradient):
    losses, by_logits = both(native, logits, labels, gradient)
    expected, expected_by_logits = by_formula(logits, labels, gradient)
    # The difference of two logits is rounded, and so is the sum of the exponentials, whose terms are added in order.
    bound = 4 * EPSILON * (logits.max() - logits.min() + logits.shape[1])
    np.testing.assert_allclose(losses, expected, atol=bound)
    np.testing.assert_allclose(by_logits, expected_by_logits, atol=bound * np.abs(gradient).max())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 22), st.integers(1, 40), st.integers(1, 60), st.sampled_from([0.1, 4.0, 30.0]))
def test_any_shape_follows_the_formulas(images, classes, height, width, scale):
    assert_follows_the_formulas(load(), *example((images, classes, height, width), scale))


@pytest.mark.parametrize("shape", [(2, 300, 5, 7), (1, 2, 64, 64), (1, 3, 1, 1025)])
def test_many_classes_and_several_stretches_follow_the_formulas(native, shape):
    assert_follows_the_formulas(native, *example(shape))


def test_what_is_no_class_has_no_loss_and_no_gradient(native):
    logits, labels, gradient = example((1, 3, 4, 9))
    for label in (3, 255, -1, np.iinfo(np.int32).max, np.iinfo(np.int32).min):
        losses, by_logits = both(native, logits, np.full_like(labels, label), gradient)
        assert not losses.any()
        assert not by_logits.any()


def test_logits_far_apart_neither_overflow_nor_vanish(native):
    logits = np.zeros((1, 2, 1, 3), np.float32)
    logits[0, 0] = [3e38, -1e4, 80.0]
    losses, by_logits = both(native, logits, np.zeros((1, 1, 3), np.int32), np.ones((1, 1, 3), np.float32))
    np.testing.assert_allclose(losses[0, 0], [0, 1e4, 0], atol=1e-30)
    np.testing.assert_allclose(by_logits[0, 1, 0], [0, 1, np.exp(-80.0)], rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("class_of_nan", [0, 1, 2])
def test_a_logit_that_is_no_number_shows_in_the_loss_and_the_gradient(native, class_of_nan):
    logits, _, gradient = example((1, 3, 2, 37))
    logits[0, class_of_nan, 1, 20] = np.nan
    losses, by_logits = both(native, logits, np.zeros((1, 2, 37), np.int32), gradient)
    assert np.isnan(losses[0, 1, 20])
    assert np.isnan(by_logits[0, :, 1, 20]).all()
    assert np.isnan(losses).sum() == 1
    assert np.isnan(by_logits).sum() == 3


def test_the_same_bits_on_any_number_of_threads(native):
    logits, labels, gradient = example((3, 5, 70, 61))
    assert_same_bits_on_any_number_of_threads(native, lambda: both(native, logits, labels, gradient))
