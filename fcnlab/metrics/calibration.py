"""Whether a network is as sure as it is right, and how soon a reviewer who follows its doubt finds its errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 15
"""The number of bins of confidence, as in Guo et al. (2017)."""


class Calibration:
    """How often the predicted class is right, by the probability that the network gives it.

    The expected calibration error is the mean distance between both, over bins of equal width that are weighted by
    their pixels (Naeini, Cooper & Hauskrecht, AAAI 2015; Guo, Pleiss, Sun & Weinberger, ICML 2017, section 2).

    Args:
        bins: The number of bins of confidence between 0 and 1.

    Attributes:
        pixels: The number of pixels in each bin, int64.
        right: The number of those whose predicted class is right, int64.
        confidence: The sum of their confidence, float64.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.pixels = np.zeros(bins, np.int64)
        self.right = np.zeros(bins, np.int64)
        self.confidence = np.zeros(bins)

    def update(self, label: np.ndarray, prediction: np.ndarray, confidence: np.ndarray, ignore_index: int) -> None:
        """Count the pixels of one or more images that are not void.

        Args:
            label: Class indices, with ``ignore_index`` for void; integers of any shape.
            prediction: The predicted class indices; integers of the same shape.
            confidence: The probability of the predicted class, between 0 and 1; float of the same shape.
            ignore_index: The label of void pixels.

        Raises:
            ValueError: If the shapes differ.
        """
        if not label.shape == prediction.shape == confidence.shape:
            raise ValueError(f"shapes differ: {label.shape}, {prediction.shape} and {confidence.shape}")
        counted = label != ignore_index
        sure = confidence[counted].astype(np.float64)
        right = (label == prediction)[counted]
        count = len(self.pixels)
        places = np.minimum((sure * count).astype(np.int64), count - 1)
        self.pixels += np.bincount(places, minlength=count)
        self.right += np.bincount(places[right], minlength=count)
        self.confidence += np.bincount(places, sure, minlength=count)

    @property
    def error(self) -> float:
        """The expected calibration error, between 0 and 1; NaN without a pixel."""
        total = self.pixels.sum()
        return float(np.abs(self.right - self.confidence).sum() / total) if total else float("nan")

    @property
    def accuracy(self) -> np.ndarray:
        """The share of right pixels in each bin, float64; NaN in an empty bin."""
        return np.divide(self.right, self.pixels, out=np.full(len(self.pixels), np.nan), where=self.pixels > 0)


def found_by_review(doubt: Sequence[float], errors: Sequence[int], share: float = 0.2) -> float:
    """Return which share of all errors lies in the images that are reviewed first, those of the largest doubt.

    Args:
        doubt: The doubt of each image.
        errors: The number of wrong pixels of each image.
        share: The share of the images that are reviewed, at least one of them.

    Returns:
        Between 0 and 1; NaN if there is no error.
    """
    wrong = np.asarray(errors, dtype=np.float64)
    if not wrong.sum():
        return float("nan")
    count = max(1, round(share * len(wrong)))
    first = np.argsort(-np.asarray(doubt, dtype=np.float64), kind="stable")[:count]
    return float(wrong[first].sum() / wrong.sum())
