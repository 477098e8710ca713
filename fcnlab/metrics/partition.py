"""The scores of the ISBI 2012 challenge, which say how well membranes divide an image into cells."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""The thresholds on the probability of a cell; the challenge binarises at each and takes the best score."""


class PartitionScore(NamedTuple):
    """The two scores of a partition, both of which are 1 for a perfect one.

    Attributes:
        rand: The foreground-restricted Rand score.
        information: The foreground-restricted information-theoretic score.
    """

    rand: float
    information: float


class PartitionScores:
    """The challenge's two scores after border thinning, over any number of slices and for several thresholds.

    The true cells S are the 4-connected components of the pixels that are not membrane in the label. A prediction is
    binarised, its membranes are thinned to a width of one pixel (`thin`) as if they continued beyond the image, and the
    4-connected components of the rest are the found cells T. Only pixels that are not membrane in the label count, so
    that the width of a membrane does not matter; each of them that lies on a found membrane is a cell of its own. With
    n_ij pixels in the true cell i and the found cell j, and s_i and t_j their sums over j and i,

        rand = 2 sum n_ij (n_ij - 1) / (sum s_i (s_i - 1) + sum t_j (t_j - 1))

        information = 2 I(S; T) / (H(S) + H(T))

    The first is the F-score of the pairs of pixels that are in one cell. (The challenge's own program also pairs each
    pixel with itself, which changes the fourth digit; scikit-image's ``adapted_rand_error`` does not.)

    Source: Arganda-Carreras et al., *Frontiers in Neuroanatomy* 9:142, 2015, section "Evaluation metrics", with
    alpha = 1/2. A cell belongs to one slice. For several slices, the first score sums up their pairs, and the second
    their entropies, weighted by their pixels.

    Args:
        thresholds: The thresholds on the probability of a cell.
    """

    def __init__(self, thresholds: tuple[float, ...] = THRESHOLDS) -> None:
        self.thresholds = thresholds
        self._counted = False
        # The columns belong to the overlaps, the true cells and the found cells.
        self._pairs = np.zeros((len(thresholds), 3))
        self._entropies = np.zeros((len(thresholds), 3))

    def update(self, cell: np.ndarray, probability: np.ndarray) -> None:
        """Count one slice.

        Args:
            cell: H x W bool; False on membranes, and for all other pixels that shall not count.
            probability: H x W, the probability that a pixel belongs to a cell; 0 and 1 if only classes are known.

        Raises:
            ValueError: If the shapes differ.
        """
        if cell.shape != probability.shape:
            raise ValueError(f"label and probability differ in shape: {cell.shape} and {probability.shape}")
        true = components(cell)[cell]
        if true.size == 0:
            return
        self._counted = True
        previous: np.ndarray | None = None
        for index, threshold in enumerate(self.thresholds):
            binary = probability >= threshold
            if previous is None or not np.array_equal(binary, previous):
                counts = overlaps(true, components(~_thin_membranes(~binary))[cell])
                previous = binary
            self._pairs[index] += [float((values * (values - 1.0)).sum()) for values in counts]
            self._entropies[index] += [_entropy(values) for values in counts]

    @property
    def scores(self) -> list[PartitionScore]:
        """The scores for each threshold; NaN before any slice was counted."""
        rand = _ratio(*self._pairs.T)
        joint, true, found = self._entropies.T
        information = _ratio(true + found - joint, true, found)
        if not self._counted:
            rand[:] = information[:] = np.nan
        return [PartitionScore(*map(float, pair)) for pair in zip(rand, information, strict=True)]

    @property
    def best(self) -> PartitionScore:
        """The best value of each score over the thresholds, as the challenge ranks."""
        return PartitionScore(*(max(values) for values in zip(*self.scores, strict=True)))


def _thin_membranes(mask: np.ndarray) -> np.ndarray:
    """Thin lines as if they continued beyond the image: an end at the border would be shortened, and join two cells."""
    beyond = 32  # pixels, which is more than half of a membrane's width
    return thin(np.pad(mask, beyond, mode="edge"))[beyond:-beyond, beyond:-beyond]


def components(mask: np.ndarray) -> np.ndarray:
    """Return the 4-connected components of a mask, H x W int32, numbered from 1; 0 is outside of the mask."""
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]


def _ratio(shared: np.ndarray, true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return 2 shared / (true + found), or 1 where nothing could be wrong."""
    total = true + found
    return np.divide(2 * shared, total, out=np.ones(total.shape), where=total > 0)


def overlaps(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of pixels of each pair of cells that overlap, of each true cell and of each predicted cell.

    Args:
        true: The true cell of each pixel, from 1; one axis.
        predicted: The predicted cell of each pixel, from 1; one axis. Each pixel with a 0 is a cell of its own.
    """
    predicted = predicted.astype(np.int64)
    alone = predicted == 0
    predicted[alone] = predicted.max() + 1 + np.arange(np.count_nonzero(alone))
    pairs = true.astype(np.int64) * (predicted.max() + 1) + predicted
    return tuple(np.unique(values, return_counts=True)[1] for values in (pairs, true, predicted))


def _entropy(counts: np.ndarray) -> float:
    """Return the entropy of a partition with cells of these sizes, in nats, times the number of its pixels."""
    total = counts.sum()
    return float(-(counts * np.log(counts / total)).sum())


def thin(mask: np.ndarray) -> np.ndarray:
    """Thin lines to a width of one pixel, without changing what they enclose and how they are connected.

    Source: Guo & Hall, "Parallel thinning with two-subiteration algorithms", CACM 32(3), 1989, algorithm A1; unlike
    Zhang & Suen's, it leaves two-pixel squares.

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


# The bits of a code are the eight neighbours, anticlockwise from the one to the right.
_WEIGHTS = np.array([[8, 4, 2], [16, 0, 1], [32, 64, 128]], np.float32)


def _removable() -> tuple[np.ndarray, np.ndarray]:
    """Return whether the first and the second half of an iteration remove a pixel of each code, 256 bool each."""
    bits = ((np.arange(256)[:, np.newaxis] >> np.arange(8)) & 1).astype(bool)
    sides, corners = bits[:, 0::2], bits[:, 1::2]  # right, up, left and down, and the corner after each
    following = np.roll(sides, -1, axis=1)
    crossings = (~sides & (corners | following)).sum(axis=1)
    neighbours = np.minimum((sides | corners).sum(axis=1), (corners | following).sum(axis=1))
    common = (crossings == 1) & (neighbours >= 2) & (neighbours <= 3)
    right, up_right, up, up_left, left, down_left, down, down_right = bits.T
    first = common & ~((up_right | up | ~down_right) & right)
    second = common & ~((down_left | down | ~up_left) & left)
    return first, second


_REMOVABLE = _removable()
