"""Wilcoxon's signed-rank test, exactly (Wilcoxon 1945)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST = 6
"""The smallest number of pairs for which the test can find anything: with 5, no p is below 0.05."""

_MOST = 500  # pairs for which the distribution is computed in less than a second


def signed_rank_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the hypothesis that differences are symmetric about 0.

    It is exact also with ties: each rank counts with either sign alike, and tied differences share their mean rank.
    Pairs without a difference are left out, as Wilcoxon did.

    Args:
        differences: The difference of each pair.

    Returns:
        The p-value; NaN where the test does not apply, with fewer than `FEWEST` pairs that differ or more than 500.
    """
    values = np.array([value for value in differences if value != 0])
    if not FEWEST <= len(values) <= _MOST:
        return math.nan
    _, places, sizes = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    doubled = (2 * last - sizes + 1)[places]  # twice the mean rank, which is a whole number
    total = int(doubled.sum())
    shares = np.zeros(total + 1)  # of the sums of positive ranks, doubled
    shares[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(shares)
        moved[rank:] = shares[: total + 1 - rank]
        shares = (shares + moved) / 2
    positive = int(doubled[values > 0].sum())
    smaller = min(positive, total - positive)
    return min(1.0, 2 * float(shares[: smaller + 1].sum()))
