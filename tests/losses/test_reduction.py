"""The sum over pixels of the paper, against the formulas a pixel at a time."""

import mindspore as ms
import numpy as np
import pytest
from loss_formulas import VOID, WEIGHTS, focal, softmax
from mindspore import Tensor

from fcnlab.core.errors import ConfigError
from fcnlab.losses import AccumulatedLoss, Combined, CrossEntropy, Dice, Focal

MODES = pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])


def batch():
    """Logits and labels of 4 classes, 2 images of 5 x 7, about a third void."""
    generator = np.random.default_rng(4)
    logits = (2 * generator.standard_normal((2, 4, 5, 7))).astype(np.float32)
    labels = generator.integers(0, 4, (2, 5, 7)).astype(np.int32)
    labels[generator.random(labels.shape) < 0.3] = VOID
    return logits, labels


def weight_of(labels, weights):
    """Return the weight of each pixel, 0 where it is void."""
    return np.where(labels == VOID, 0.0, np.append(weights or np.ones(4), 0)[np.minimum(labels, 4)])


@MODES
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("gamma", [None, 2.0], ids=["cross_entropy", "focal"])
def test_the_sum_is_the_formulas_and_so_is_its_gradient(mode, weights, gamma):
    ms.set_context(mode=mode)
    logits, labels = batch()
    of_pixel = weight_of(labels, weights)
    if gamma is None:
        loss = CrossEntropy(VOID, 4, weights, reduction="sum")
    else:
        loss = Focal(VOID, 4, weights, gamma, reduction="sum")
    value, gradient = ms.value_and_grad(loss, 0)(Tensor(logits), Tensor(labels))
    probabilities = softmax(logits.astype(np.float64))
    mean = focal(probabilities, labels, gamma or 0.0, weights)
    assert float(value.asnumpy()) == pytest.approx(mean * of_pixel.sum(), rel=1e-5)
    one_hot = labels[:, None] == np.arange(4).reshape(1, 4, 1, 1)
    if gamma is None:
        expected = (probabilities - one_hot) * of_pixel[:, None]
    else:  # d/dp of -(1 - p)^2 log p, times dp/dlogits = p * (one-hot - softmax)
        p = (probabilities * one_hot).sum(axis=1, keepdims=True) + (labels == VOID)[:, None]
        of_p = 2 * (1 - p) * np.log(p) - (1 - p) ** 2 / p
        expected = of_p * p * (one_hot - probabilities) * of_pixel[:, None]
    np.testing.assert_allclose(gradient.asnumpy(), expected, atol=2e-5)


def test_a_sum_over_images_is_the_sum_of_their_losses():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    logits, labels = batch()
    loss = CrossEntropy(VOID, 4, WEIGHTS, reduction="sum")
    by_image = [float(loss(Tensor(logits[i : i + 1]), Tensor(labels[i : i + 1])).asnumpy()) for i in range(2)]
    sums = loss.sums(Tensor(logits), Tensor(labels)).asnumpy().astype(np.float64)
    assert loss.from_sums(sums) == pytest.approx(sum(by_image), rel=1e-6)
    only_void = loss.sums(Tensor(logits), Tensor(np.full_like(labels, VOID))).asnumpy()
    assert loss.from_sums(only_void) == 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_its_first_sum_over_its_divisor(reduction):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    logits, labels = batch()
    loss = CrossEntropy(VOID, 4, WEIGHTS, reduction)
    sums = loss.sums(Tensor(logits), Tensor(labels)).asnumpy().astype(np.float64)
    expected = 1 if reduction == "sum" else weight_of(labels, WEIGHTS).sum()
    divisor = float(loss.divisor(Tensor(sums.astype(np.float32))).asnumpy())
    assert divisor == pytest.approx(expected)
    assert loss.from_sums(sums) == pytest.approx(sums[0] / divisor)
    assert loss.divisor(Tensor(np.zeros(2, np.float32))).asnumpy() == 1  # nothing but void divides nothing


def test_only_sums_over_pixels_can_be_accumulated():
    assert isinstance(Focal(VOID, 2), AccumulatedLoss)
    assert not isinstance(Dice(VOID, 2), AccumulatedLoss)
    assert not isinstance(Combined(VOID, 2), AccumulatedLoss)


def test_another_reduction_is_refused():
    with pytest.raises(ConfigError, match=r"^loss.reduction=none: choose one of mean, sum$"):
        CrossEntropy(VOID, 2, reduction="none")
