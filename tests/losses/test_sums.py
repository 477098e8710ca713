"""The loss of many images from the sums of each, against the formulas applied to all their pixels at once."""

import mindspore as ms
import numpy as np
import pytest
from loss_formulas import VOID, WEIGHTS, dice, focal, softmax
from mindspore import Tensor, nn

from fcnlab.losses import Combined, CrossEntropy, Dice, Focal, SummedLoss

LOSSES = {
    "cross-entropy": (lambda: CrossEntropy(VOID, 4), lambda p, y: focal(p, y, 0.0)),
    "cross-entropy, weighted": (lambda: CrossEntropy(VOID, 4, WEIGHTS), lambda p, y: focal(p, y, 0.0, WEIGHTS)),
    "focal, weighted": (lambda: Focal(VOID, 4, WEIGHTS, 1.5), lambda p, y: focal(p, y, 1.5, WEIGHTS)),
    "dice": (lambda: Dice(VOID, 4), lambda p, y: dice(p, y)),
    "dice, weighted": (lambda: Dice(VOID, 4, WEIGHTS), lambda p, y: dice(p, y, WEIGHTS)),
    "combined": (
        lambda: Combined(VOID, 4, WEIGHTS, 2.0, dice=0.3),
        lambda p, y: 0.7 * focal(p, y, 2.0, WEIGHTS) + 0.3 * dice(p, y, WEIGHTS),
    ),
}
SIZES = ((3, 5), (8, 6), (4, 4), (2, 9), (3, 3))


def images(sizes):
    """Logits and labels of one image each: classes are missing in some, the last occurs nowhere, one is all void."""
    generator = np.random.default_rng(3)
    for number, size in enumerate(sizes):
        logits = (2 * generator.standard_normal((1, 4, *size))).astype(np.float32)
        labels = generator.integers(0, 1 + number % 3, (1, *size)).astype(np.int32)
        labels[generator.random(labels.shape) < 0.2] = VOID
        if number == 4:
            labels[:] = VOID
        yield logits, labels


def total(loss, pairs):
    return sum(loss.sums(Tensor(logits), Tensor(labels)).asnumpy().astype(np.float64) for logits, labels in pairs)


@pytest.mark.parametrize("name", LOSSES)
def test_sums_over_images_give_the_loss_of_all_their_pixels(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    loss, formula = LOSSES[name][0](), LOSSES[name][1]
    pairs = list(images(SIZES))
    logits = np.concatenate([logits.reshape(1, 4, 1, -1) for logits, _ in pairs], axis=3)
    labels = np.concatenate([labels.reshape(1, 1, -1) for _, labels in pairs], axis=2)
    expected = formula(softmax(logits.astype(np.float64)), labels)
    assert loss.from_sums(total(loss, pairs)) == pytest.approx(expected, rel=1e-5)
    counted = [np.count_nonzero(labels != VOID) for _, labels in pairs]
    by_image = [float(loss(Tensor(logits), Tensor(labels)).asnumpy()) for logits, labels in pairs]
    if name != "cross-entropy":  # the mean of the images' losses, weighted by their pixels, differs
        assert np.average(by_image, weights=counted) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_sums_over_images_of_one_size_give_the_loss_of_one_batch(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    loss = LOSSES[name][0]()
    pairs = list(images([(4, 5)] * 5))
    logits, labels = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    batch = float(loss(Tensor(logits), Tensor(labels)).asnumpy())
    assert loss.from_sums(total(loss, pairs)) == pytest.approx(batch, rel=1e-5)
    assert loss.from_sums(total(loss, [(logits, labels)])) == pytest.approx(batch, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_where_nothing_counts_it_is_zero(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    loss = LOSSES[name][0]()
    logits, labels = next(images(SIZES))
    only_void = total(loss, [(logits, np.full_like(labels, VOID))])
    assert loss.from_sums(only_void) == 0
    if "weighted" in name or name == "combined":
        of_weight_0 = CrossEntropy(VOID, 4, WEIGHTS) if name == "combined" else loss
        assert of_weight_0.from_sums(total(of_weight_0, [(logits, np.full_like(labels, 2))])) == 0


def test_a_loss_without_sums_is_none_of_these():
    assert isinstance(CrossEntropy(VOID, 2), SummedLoss)
    assert not isinstance(nn.CrossEntropyLoss(), SummedLoss)
