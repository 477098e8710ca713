"""The worst, the median and the best image of an evaluation, by the mean IoU of each image alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from fcnlab.data.dataset import Sample

ROLES = ("worst", "median", "best")

_LARGEST = 256  # pixels of a prediction's longer side, since all predictions of an evaluation are kept till its end


class RankedImage(NamedTuple):
    """One image of an evaluation.

    Attributes:
        role: One of `ROLES`.
        mean_iou: The mean IoU of the classes that occur in its label or prediction.
        sample: The image and its label.
        prediction: The predicted class indices, uint8. Its longer side has at most 256 pixels; every pixel is one of
            the whole prediction.
    """

    role: str
    mean_iou: float
    sample: Sample
    prediction: np.ndarray


class _Scored(NamedTuple):
    mean_iou: float
    index: int
    shape: tuple[int, int]
    packed: bytes


class Ranking:
    """Collects the images of an evaluation; of each it keeps a small prediction, some kilobytes."""

    def __init__(self) -> None:
        self._scored: list[_Scored] = []

    def add(self, index: int, mean_iou: float, prediction: np.ndarray) -> None:
        """Add an image; one whose pixels are all void has no IoU, and is left out.

        Args:
            index: The index of the sample.
            mean_iou: The mean IoU of the image; NaN if it has none.
            prediction: The predicted class indices, H x W.
        """
        if math.isnan(mean_iou):
            return
        small = reduced(prediction.astype(np.uint8))
        self._scored.append(_Scored(mean_iou, index, small.shape, zlib.compress(small.tobytes(), 1)))

    def __iter__(self) -> Iterator[tuple[str, float, int, np.ndarray]]:
        """Yield role, mean IoU, index and prediction of the worst, median and best image; none without images.

        Of images with one IoU, the first counts as the worse. With an even number of images, the median is the worse of
        the two in the middle. Few images have several roles.
        """
        ranked = sorted(self._scored)
        if not ranked:
            return
        for role, place in zip(ROLES, (0, (len(ranked) - 1) // 2, len(ranked) - 1), strict=True):
            mean_iou, index, shape, packed = ranked[place]
            yield role, mean_iou, index, np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)


def reduced(indices: np.ndarray, largest: int = _LARGEST) -> np.ndarray:
    """Return class indices, H x W uint8, of which only every so many pixels are left if a side is longer than that."""
    height, width = indices.shape
    factor = min(largest / max(height, width), 1.0)
    if factor == 1:
        return indices
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(indices, size, interpolation=cv2.INTER_NEAREST_EXACT)
