"""What the numbers of a comparison mean, in words: who is better, by how much, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fcnlab.comparison.significance import CONFIDENCE, Difference
from fcnlab.comparison.student import quantile

Word = Literal["better", "worse", "equivalent", "tied", "undecided"]

POWER = 0.8
"""The probability with which the seeds that a verdict asks for would settle it, if the difference stays as it is."""

_MOST_SEEDS = 1000
_ALPHA = 1 - CONFIDENCE


@dataclass(frozen=True)
class Verdict:
    """What a difference from the reference means.

    Attributes:
        word: ``better`` or ``worse`` if the difference is more than chance; ``equivalent`` if it is within the margin,
            whether it is more than chance or not; ``tied`` if both have the same value in every pair; ``undecided``
            otherwise.
        further_seeds: How many further seeds of both groups would settle what is undecided, with a probability of
            `POWER`; None if that cannot be told, or if no number of seeds would.
        needs_images: Whether no number of seeds would settle it, as too much depends on the images.
    """

    word: Word
    further_seeds: int | None = None
    needs_images: bool = False


def judge(difference: Difference, higher_is_better: bool, margin: float | None, comparisons: int) -> Verdict:
    """Return what a difference means.

    Args:
        difference: The difference from the reference, with corrected p-values.
        higher_is_better: Whether a positive difference is an advantage.
        margin: The largest difference that does not matter; None if every difference matters.
        comparisons: The number of comparisons that its p-values were corrected for.
    """
    if difference.is_tie:
        return Verdict("tied")
    if difference.pairs < 2:  # what another seed would give is unknown, however many images there are
        return Verdict("undecided")
    if difference.equivalence_p < _ALPHA:
        return Verdict("equivalent")
    if difference.p < _ALPHA:
        return Verdict("better" if (difference.mean > 0) == higher_is_better else "worse")
    return _undecided(difference, margin, comparisons)


def _undecided(difference: Difference, margin: float | None, comparisons: int) -> Verdict:
    spread = difference.spread
    if spread is None or not math.isfinite(spread.per_seed) or difference.over_folds:
        return Verdict("undecided")
    effects = [(abs(difference.mean), 2)]
    if margin is not None:
        effects.append((margin - abs(difference.mean), 1))
    counts = [_seeds_for(difference, effect, tails, comparisons) for effect, tails in effects]
    found = min((count for count in counts if count is not None), default=None)
    if found is None:
        return Verdict("undecided", needs_images=spread.floor > 0)
    return Verdict("undecided", further_seeds=found - difference.pairs)


def _seeds_for(difference: Difference, effect: float, tails: int, comparisons: int) -> int | None:
    """Return the smallest number of seeds, above the present one, at which a test would find an effect of this size."""
    if effect <= 0:
        return None
    seeds = np.arange(difference.pairs + 1, _MOST_SEEDS + 1)
    error, freedom = difference.spread.with_seeds(seeds)
    needed = quantile(1 - _ALPHA / tails / max(comparisons, 1), freedom) + quantile(POWER, freedom)
    enough = effect >= needed * error
    return int(seeds[enough.argmax()]) if enough.any() else None
