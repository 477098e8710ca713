"""The boundary F1 score, which says how close predicted boundaries are to the true ones."""

from __future__ import annotations

import cv2
import numpy as np


class BoundaryF1:
    """The boundary F1 score of each class, over any number of images.

    For one class of one image, the precision is the share of the predicted boundary's pixels that have a pixel of the
    true boundary within the tolerance, the recall is the same with the boundaries exchanged, and the score is their
    harmonic mean. An image counts for a class if the class has a boundary in the label or in the prediction; with a
    boundary in one of them alone, the score is 0. A class's score is the mean over the images that count for it.

    Source: Csurka, Larlus & Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013,
    section 2.3, with a tolerance in pixels in place of one relative to the image's diagonal.

    A boundary consists of the pixels of a class that have a pixel of another class above, below, left or right. The
    image's edge is no boundary, and neither is the border to void. Void pixels count neither as label nor as
    prediction.

    Args:
        num_classes: The number of classes C.
        ignore_index: The label of void pixels.
        tolerance: The largest distance, in pixels.

    Attributes:
        totals: The sum of the images' scores for each class, C float64.
        images: The number of images that count for each class, C int64.
    """

    def __init__(self, num_classes: int, ignore_index: int, tolerance: float) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.tolerance = tolerance
        self.totals = np.zeros(num_classes)
        self.images = np.zeros(num_classes, dtype=np.int64)

    def update(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image.

        Args:
            label: H x W class indices, with ``ignore_index`` for void.
            prediction: H x W class indices.

        Raises:
            ValueError: If the shapes differ.
        """
        if label.shape != prediction.shape:
            raise ValueError(f"label and prediction differ in shape: {label.shape} and {prediction.shape}")
        void = label == self.ignore_index
        for index in range(self.num_classes):
            true = _boundary((label == index) & ~void, void)
            found = _boundary((prediction == index) & ~void, void)
            if not (true.any() or found.any()):
                continue
            precision, recall = self._near(found, true), self._near(true, found)
            self.totals[index] += 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            self.images[index] += 1

    def _near(self, boundary: np.ndarray, other: np.ndarray) -> float:
        """Return the share of a boundary's pixels that are within the tolerance of another, or 0 if either is empty."""
        if not (boundary.any() and other.any()):
            return 0.0
        # This is the distance to the nearest zero, exact to float32.
        distance = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return float((distance[boundary] <= self.tolerance + 1e-3).mean())

    @property
    def scores(self) -> np.ndarray:
        """The score of each class, C float64; NaN for a class that no image counts for."""
        return np.divide(self.totals, self.images, out=np.full(self.num_classes, np.nan), where=self.images > 0)

    @property
    def mean(self) -> float:
        """The mean over the classes that have a score; NaN if none has."""
        scores = self.scores
        return float(np.nanmean(scores)) if (self.images > 0).any() else float("nan")


def _boundary(mask: np.ndarray, void: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask that are beside a pixel that is neither in the mask nor void."""
    outside = ~(mask | void)
    beside = np.zeros_like(mask)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return mask & beside
