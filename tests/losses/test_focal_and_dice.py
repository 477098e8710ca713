"""Focal, Dice and combined losses against their papers' formulas in float64, and those formulas' differences."""

import mindspore as ms
import numpy as np
import pytest
from loss_formulas import VOID, WEIGHTS, dice, focal, softmax
from mindspore import Tensor

from fcnlab.core.errors import ConfigError
from fcnlab.losses import Combined, CrossEntropy, Dice, Focal

LOSSES = {
    "focal": (lambda: Focal(VOID, 4), lambda p, labels: focal(p, labels)),
    "focal, weighted": (lambda: Focal(VOID, 4, WEIGHTS, 1.5), lambda p, labels: focal(p, labels, 1.5, WEIGHTS)),
    "dice": (lambda: Dice(VOID, 4), lambda p, labels: dice(p, labels)),
    "dice, weighted": (lambda: Dice(VOID, 4, WEIGHTS), lambda p, labels: dice(p, labels, WEIGHTS)),
    "combined": (
        lambda: Combined(VOID, 4, dice=0.3),
        lambda p, labels: 0.7 * focal(p, labels, 0.0) + 0.3 * dice(p, labels),
    ),
    "combined, focal": (
        lambda: Combined(VOID, 4, WEIGHTS, 2.0),
        lambda p, labels: 0.5 * focal(p, labels, 2.0, WEIGHTS) + 0.5 * dice(p, labels, WEIGHTS),
    ),
}


def batch(seed=0):
    """Logits and labels of 4 classes, of which the last does not occur; 2 images of 3 x 4, some void."""
    generator = np.random.default_rng(seed)
    logits = (2 * generator.standard_normal((2, 4, 3, 4))).astype(np.float32)
    labels = generator.integers(0, 3, (2, 3, 4)).astype(np.int32)
    labels[generator.random(labels.shape) < 0.2] = VOID
    return logits, labels


def differences(formula, logits, labels, step=1e-5):
    """The gradient by central differences in float64."""
    gradient = np.zeros(logits.shape)
    for place in np.ndindex(logits.shape):
        shift = np.zeros(logits.shape)
        shift[place] = step
        above, below = (formula(softmax(logits + sign * shift), labels) for sign in (1, -1))
        gradient[place] = (above - below) / (2 * step)
    return gradient


def value_and_gradient(loss, logits, labels):
    value, gradient = ms.value_and_grad(loss, 0)(Tensor(logits), Tensor(labels))
    return float(value.asnumpy()), gradient.asnumpy()


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_follow_the_formula(name):
    ms.set_context(mode=ms.GRAPH_MODE)
    make, formula = LOSSES[name]
    logits, labels = batch()
    value, gradient = value_and_gradient(make(), logits, labels)
    assert value == pytest.approx(formula(softmax(logits.astype(np.float64)), labels), rel=1e-5)
    np.testing.assert_allclose(gradient, differences(formula, logits.astype(np.float64), labels), atol=2e-6)


def test_gamma_of_zero_is_cross_entropy():
    logits, labels = batch(1)
    value, gradient = value_and_gradient(Focal(VOID, 4, WEIGHTS, 0.0), logits, labels)
    expected, expected_gradient = value_and_gradient(CrossEntropy(VOID, 4, WEIGHTS), logits, labels)
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_only_void_is_zero_and_huge_logits_are_finite(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    loss = LOSSES[name][0]()
    logits, labels = batch()
    value, gradient = value_and_gradient(loss, logits, np.full_like(labels, VOID))
    assert value == 0
    assert not gradient.any()
    for scale in (1e4, 1e30):
        value, gradient = value_and_gradient(loss, logits * np.float32(scale), labels)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_a_perfect_prediction_has_no_dice_loss_and_a_wrong_one_all_of_it():
    labels = np.array([[[0, 1], [2, VOID]]], np.int32)
    logits = np.full((1, 4, 2, 2), -50, np.float32)
    for row, column, label in ((0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)):
        logits[0, label, row, column] = 50
    assert value_and_gradient(Dice(VOID, 4), logits, labels)[0] == pytest.approx(0, abs=1e-6)
    assert value_and_gradient(Dice(VOID, 4), np.roll(logits, 1, axis=1), labels)[0] == pytest.approx(1)


@pytest.mark.parametrize("loss", [Focal, Dice, Combined])
def test_weights_that_do_not_fit_are_refused(loss):
    with pytest.raises(ConfigError, match="one weight for each of 4"):
        loss(VOID, 4, [1.0, 2.0])
