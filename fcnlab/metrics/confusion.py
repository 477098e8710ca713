"""The confusion matrix, in integer arithmetic, and the segmentation metrics that follow from it."""

from __future__ import annotations

import numpy as np


class ConfusionMatrix:
    """The numbers of pixels of each class that were predicted as each class, over any number of images.

    With n_ij pixels of class i predicted as class j and t_i = sum_j n_ij, the metrics are those of Long, Shelhamer &
    Darrell (PAMI 2017, section 5, "Metrics"). A class that is absent from both label and prediction is left out of the
    means. A class that is predicted but absent from the labels has an IoU of 0, which counts, and no accuracy, so that
    it is left out of the mean accuracy. Without any pixel, a metric is NaN.

    Args:
        num_classes: The number of classes C.
        ignore_index: The label of void pixels, which do not count. It may be one of the classes or none of them.

    Attributes:
        counts: The numbers n_ij, C x C int64; rows are labels, columns predictions.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Count the pixels of one or more images.

        Args:
            labels: Class indices or ``ignore_index``; integers of any shape.
            predictions: Class indices; integers of the same shape. Values where the label is void are ignored.

        Raises:
            ValueError: If the shapes differ, an array does not hold integers, or a value is out of range; nothing is
                counted then.
        """
        if labels.shape != predictions.shape:
            raise ValueError(f"labels and predictions differ in shape: {labels.shape} and {predictions.shape}")
        for name, array in (("labels", labels), ("predictions", predictions)):
            if not np.issubdtype(array.dtype, np.integer):
                raise ValueError(f"{name} must be integers, not {array.dtype}")
        counted = labels != self.ignore_index
        # Without int64, C * label would overflow in uint8.
        rows = self._in_range("labels", labels[counted].astype(np.int64))
        columns = self._in_range("predictions", predictions[counted].astype(np.int64))
        cells = np.bincount(self.num_classes * rows + columns, minlength=self.num_classes**2)
        self.counts += cells.reshape(self.num_classes, self.num_classes)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix, such as that of another part of the data set.

        Raises:
            ValueError: If its number of classes or its void label differs.
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
        """The pixel accuracy, sum_i n_ii / sum_i t_i."""
        return float(_divide(self._correct.sum(), self.counts.sum()))

    @property
    def mean_accuracy(self) -> float:
        """The mean accuracy: the mean of n_ii / t_i over the classes that occur in the labels."""
        return _mean(_divide(self._correct, self._labelled))

    @property
    def iou(self) -> np.ndarray:
        """The IoU of each class, n_ii / (t_i + sum_j n_ji - n_ii), C float64; NaN for a class that is absent."""
        return _divide(self._correct, self._labelled + self._predicted - self._correct)

    @property
    def dice(self) -> np.ndarray:
        """The Dice score of each class, 2 n_ii / (t_i + sum_j n_ji), C float64; NaN for a class that is absent."""
        return _divide(2 * self._correct, self._labelled + self._predicted)

    @property
    def mean_iou(self) -> float:
        """The mean IoU over the classes that occur in the labels or the predictions."""
        return _mean(self.iou)

    @property
    def frequency_weighted_iou(self) -> float:
        """The frequency-weighted IoU, sum_i t_i IoU_i / sum_k t_k."""
        return float(_divide((self._labelled * np.nan_to_num(self.iou)).sum(), self.counts.sum()))

    def summary(self) -> dict[str, float]:
        """Return the paper's four metrics by name."""
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
    """Return the quotient, which is NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN, or NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
