"""How well membranes part an image into cells: the scores of the ISBI 2012 challenge."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""On the probability of a cell: the challenge binarises at each and counts the best."""


class PartitionScore(NamedTuple):
    """The better a partition, the closer to 1 both are.

    Attributes:
        rand: The foreground-restricted Rand score.
        information: The foreground-restricted information-theoretic score.
    """

    rand: float
    information: float


class PartitionScores:
    """The challenge's two scores after border thinning, over any number of slices and for several thresholds.

    The true cells S are the 4-connected components of what is no membrane in the label. A prediction is binarised,
    its membranes thinned to a width of one pixel (`thin`), and the 4-connected components of the rest are the found
    cells T. Only pixels that are no membrane in the label count, so that a membrane's width does not; each of them
    that is left on a predicted membrane is a cell of its own. With p_ij their share in the true cell i and the found
    cell j, s_i and t_j its sums,

        rand = 2 sum p_ij^2 / (sum s_i^2 + sum t_j^2)      information = 2 I(S; T) / (H(S) + H(T))

    Source: Arganda-Carreras et al., *Frontiers in Neuroanatomy* 9:142, 2015, section "Evaluation metrics", with
    alpha = 1/2. Cells end at their slice. Over several slices, the squared counts of pixels are summed for the first,
    and the entropies of the slices, weighted by their pixels, for the second.

    Args:
        thresholds: On the probability of a cell.
    """

    def __init__(self, thresholds: tuple[float, ...] = THRESHOLDS) -> None:
        self.thresholds = thresholds
        self._squares = np.zeros((len(thresholds), 3))  # of the overlaps, the true and the predicted cells
        self._entropies = np.zeros((len(thresholds), 3))  # joint, true and predicted, times the pixels

    def update(self, cell: np.ndarray, probability: np.ndarray) -> None:
        """Count one slice.

        Args:
            cell: H x W bool: False on a membrane, and wherever pixels are not to count.
            probability: H x W, of a cell; or of whole predictions, 0 and 1.

        Raises:
            ValueError: If the shapes differ.
        """
        if cell.shape != probability.shape:
            raise ValueError(f"label and probability differ in shape: {cell.shape} and {probability.shape}")
        true = components(cell)[cell]
        if true.size == 0:
            return
        previous: np.ndarray | None = None
        for index, threshold in enumerate(self.thresholds):
            binary = probability >= threshold
            if previous is None or not np.array_equal(binary, previous):
                counts = overlaps(true, components(~thin(~binary))[cell])
                previous = binary
            self._squares[index] += [float((values.astype(float) ** 2).sum()) for values in counts]
            self._entropies[index] += [_entropy(values) for values in counts]

    @property
    def scores(self) -> list[PartitionScore]:
        """One for each threshold; NaN before any slice."""
        joint, true, predicted = self._squares.T
        joint_entropy, true_entropy, predicted_entropy = self._entropies.T
        with np.errstate(invalid="ignore"):
            rand = 2 * joint / (true + predicted)
        entropies = true_entropy + predicted_entropy
        # One cell in both is a perfect partition, without any information to share.
        information = np.where(entropies > 0, 2 * (entropies - joint_entropy), 1.0) / np.where(
            entropies > 0, entropies, 1.0
        )
        return [PartitionScore(*map(float, pair)) for pair in zip(rand, information, strict=True)]

    @property
    def best(self) -> PartitionScore:
        """Of both scores the best over the thresholds, as the challenge ranks."""
        return PartitionScore(*(max(values) for values in zip(*self.scores, strict=True)))


def components(mask: np.ndarray) -> np.ndarray:
    """The 4-connected components of a mask, H x W int32 from 1; 0 outside."""
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]


def overlaps(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many pixels two partitions share: of each pair that occurs, each true and each predicted cell.

    Args:
        true: Cells of the pixels, from 1, one axis.
        predicted: Likewise; a 0 is a cell of its own.
    """
    predicted = predicted.astype(np.int64)
    alone = predicted == 0
    predicted[alone] = predicted.max() + 1 + np.arange(np.count_nonzero(alone))
    pairs = true.astype(np.int64) * (predicted.max() + 1) + predicted
    return tuple(np.unique(values, return_counts=True)[1] for values in (pairs, true, predicted))


def _entropy(counts: np.ndarray) -> float:
    """Of a partition's sizes, in nats, times its pixels."""
    total = counts.sum()
    return float(-(counts * np.log(counts / total)).sum())


def thin(mask: np.ndarray) -> np.ndarray:
    """Thin lines to a width of one pixel; what they enclose and how they hang together stays.

    Source: Zhang & Suen, "A fast parallel algorithm for thinning digital patterns", CACM 27(3), 1984.

    Args:
        mask: H x W bool.

    Returns:
        H x W bool, a subset of ``mask``.
    """
    thinned = np.pad(mask, 1).astype(np.uint8)
    inner = thinned[1:-1, 1:-1]
    while True:
        removed = False
        for removable in _REMOVABLE:
            codes = cv2.filter2D(thinned, -1, _WEIGHTS, borderType=cv2.BORDER_CONSTANT)[1:-1, 1:-1]
            gone = removable[codes] & (inner != 0)
            if gone.any():
                inner[gone] = 0
                removed = True
        if not removed:
            return inner.astype(bool)


# The eight neighbours, clockwise from the one above, are the bits of a code.
_WEIGHTS = np.array([[128, 1, 2], [64, 0, 4], [32, 16, 8]], np.float32)


def _removable() -> tuple[np.ndarray, np.ndarray]:
    """For each code, whether the first and the second half of an iteration remove the pixel, 256 bool each."""
    bits = (np.arange(256)[:, np.newaxis] >> np.arange(8)) & 1
    neighbours = bits.sum(axis=1)
    transitions = ((bits == 0) & (np.roll(bits, -1, axis=1) == 1)).sum(axis=1)
    common = (neighbours >= 2) & (neighbours <= 6) & (transitions == 1)
    north, east, south, west = bits[:, 0], bits[:, 2], bits[:, 4], bits[:, 6]
    first = common & (north * east * south == 0) & (east * south * west == 0)
    second = common & (north * east * west == 0) & (north * south * west == 0)
    return first, second


_REMOVABLE = _removable()
