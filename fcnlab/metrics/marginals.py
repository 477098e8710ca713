"""The metrics of many confusion matrices at once, from their diagonals and sums alone.

Every metric of `fcnlab.metrics.confusion` follows from three numbers of each class: the pixels that are right, those
that the labels have, and those that were predicted. These add up over images as the matrices do, so that thousands of
choices of images are one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcnlab.metrics.names import IOU


def marginals(counts: np.ndarray) -> np.ndarray:
    """Return the right, the labelled and the predicted pixels of each class.

    Args:
        counts: Confusion matrices, ... x C x C; rows are labels, columns predictions.

    Returns:
        Numbers of pixels, ... x 3 x C, of the same type.
    """
    correct = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.stack([correct, counts.sum(axis=-1), counts.sum(axis=-2)], axis=-2)


def is_known(metric: str, class_names: Sequence[str]) -> bool:
    """Return whether a metric, such as ``val/mean_iou``, follows from a confusion matrix of these classes."""
    return metric in _SUMMARY or (metric.startswith(IOU) and metric.removeprefix(IOU) in class_names)


def measure(sums: np.ndarray, metric: str, class_names: Sequence[str]) -> np.ndarray:
    """Return a metric of each confusion matrix, as `fcnlab.metrics.confusion.ConfusionMatrix` defines it.

    Args:
        sums: What `marginals` returned, ... x 3 x C, or sums or weighted sums of it.
        metric: The name of the metric in Python.
        class_names: The names of the C classes.

    Returns:
        The metric, ... float64; NaN where it is not defined.

    Raises:
        ValueError: If the metric does not follow from a confusion matrix: see `is_known`.
    """
    if not is_known(metric, class_names):
        raise ValueError(f"{metric} does not follow from a confusion matrix")
    correct, labelled, predicted = (sums[..., part, :].astype(np.float64) for part in range(3))
    if metric in _SUMMARY:
        return _SUMMARY[metric](correct, labelled, predicted)
    return _iou(correct, labelled, predicted)[..., list(class_names).index(metric.removeprefix(IOU))]


def _iou(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _divide(correct, labelled + predicted - correct)


def _pixel_accuracy(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _divide(correct.sum(axis=-1), labelled.sum(axis=-1))


def _mean_accuracy(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _mean(_divide(correct, labelled))


def _mean_iou(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _mean(_iou(correct, labelled, predicted))


def _frequency_weighted_iou(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    weighted = labelled * np.nan_to_num(_iou(correct, labelled, predicted))
    return _divide(weighted.sum(axis=-1), labelled.sum(axis=-1))


_SUMMARY = {
    "val/pixel_accuracy": _pixel_accuracy,
    "val/mean_accuracy": _mean_accuracy,
    "val/mean_iou": _mean_iou,
    "val/frequency_weighted_iou": _frequency_weighted_iou,
}


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, which is NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of the values that are not NaN; NaN where there are none."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
