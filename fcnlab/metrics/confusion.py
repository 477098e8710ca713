"""Segmentation metrics, all from one confusion matrix in integer arithmetic."""

from __future__ import annotations

import numpy as np


class ConfusionMatrix:
    """How many pixels of each class were predicted as each class, over any number of images.

    With n_ij pixels of class i predicted as class j and t_i = sum_j n_ij, the metrics are those of Long, Shelhamer &
    Darrell (PAMI 2017, section 5, "Metrics"). A class absent from both label and prediction is left out of the means;
    so is, from the mean accuracy, a class absent from the labels but predicted, whose accuracy is undefined. (Its IoU
    is 0 and counts.) A metric of no pixel at all is NaN.

    Args:
        num_classes: Classes C.
        ignore_index: The label of void pixels, which do not count. It may lie among the classes or outside.

    Attributes:
        counts: n_ij, C x C, int64; rows are labels, columns predictions.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Count the pixels of one or more images.

        Args:
            labels: Class indices or ``ignore_index``; integers of any shape.
            predictions: Class indices; integers of the same shape. Not looked at where the label is void.

        Raises:
            ValueError: If the shapes differ, an array is not of integers, or a value is out of range; nothing is
                counted then.
        """
        if labels.shape != predictions.shape:
            raise ValueError(f"labels and predictions differ in shape: {labels.shape} and {predictions.shape}")
        for name, array in (("labels", labels), ("predictions", predictions)):
            if not np.issubdtype(array.dtype, np.integer):
                raise ValueError(f"{name} must be integers, not {array.dtype}")
        counted = labels != self.ignore_index
        # int64 first: C * label would overflow in uint8.
        rows = self._in_range("labels", labels[counted].astype(np.int64))
        columns = self._in_range("predictions", predictions[counted].astype(np.int64))
        cells = np.bincount(self.num_classes * rows + columns, minlength=self.num_classes**2)
        self.counts += cells.reshape(self.num_classes, self.num_classes)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix (of another worker, or another part of the data set).

        Raises:
            ValueError: If its number of classes or void label differs.
        """
        if (self.num_classes, self.ignore_index) != (other.num_classes, other.ignore_index):
            raise ValueError(
                f"cannot merge a confusion matrix of {other.num_classes} classes and ignore_index "
                f"{other.ignore_index} into one of {self.num_classes} and {self.ignore_index}"
            )
        self.counts += other.counts

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        result = ConfusionMatrix(self.num_classes, self.ignore_index)
        result.merge(self)
        result.merge(other)
        return result

    @property
    def pixel_accuracy(self) -> float:
        """sum_i n_ii / sum_i t_i."""
        return float(_divide(self._correct.sum(), self.counts.sum()))

    @property
    def mean_accuracy(self) -> float:
        """The mean over the classes that occur in the labels of n_ii / t_i."""
        return _mean(_divide(self._correct, self._labelled))

    @property
    def iou(self) -> np.ndarray:
        """Per class, n_ii / (t_i + sum_j n_ji - n_ii), float64; NaN if absent from both label and prediction."""
        return _divide(self._correct, self._labelled + self._predicted - self._correct)

    @property
    def dice(self) -> np.ndarray:
        """Per class, 2 n_ii / (t_i + sum_j n_ji), float64; NaN if absent from both label and prediction."""
        return _divide(2 * self._correct, self._labelled + self._predicted)

    @property
    def mean_iou(self) -> float:
        """The mean IoU over the classes that occur in the labels or the predictions."""
        return _mean(self.iou)

    @property
    def frequency_weighted_iou(self) -> float:
        """sum_i t_i IoU_i / sum_k t_k."""
        return float(_divide((self._labelled * np.nan_to_num(self.iou)).sum(), self.counts.sum()))

    def summary(self) -> dict[str, float]:
        """The paper's four metrics by name."""
        return {
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "mean_iou": self.mean_iou,
            "frequency_weighted_iou": self.frequency_weighted_iou,
        }

    @property
    def _correct(self) -> np.ndarray:
        return np.diagonal(self.counts)

    @property
    def _labelled(self) -> np.ndarray:
        return self.counts.sum(axis=1)

    @property
    def _predicted(self) -> np.ndarray:
        return self.counts.sum(axis=0)

    def _in_range(self, name: str, classes: np.ndarray) -> np.ndarray:
        outside = classes[(classes < 0) | (classes >= self.num_classes)]
        if outside.size:
            raise ValueError(f"{name} must be from 0 to {self.num_classes - 1}, but there is {outside[0]}")
        return classes


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)


def _mean(values: np.ndarray) -> float:
    """The mean over what is not NaN; NaN if nothing is left."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
