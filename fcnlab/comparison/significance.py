"""Whether a difference is more than chance: Student's paired t, over seeds and images, with Holm's correction."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fcnlab.comparison.resampling import Spread, spread_over_both, spread_over_images, spread_over_seeds
from fcnlab.comparison.student import quantile, tail
from fcnlab.comparison.wilcoxon import signed_rank_p

CONFIDENCE = 0.95

ROUNDING = 16 * float(np.finfo(np.float64).eps)
"""The part of a value by which two differences may differ although they are the same: metrics are rounded."""


@dataclass(frozen=True)
class Difference:
    """How one group differs from another, over the seeds that both have.

    The same seed gives both the same order of images, augmentation and, as far as their layers agree, initial weights:
    their common influence cancels out in each pair.

    Attributes:
        pairs: The number of common seeds, or of common folds and seeds.
        mean: The mean of the differences; NaN without a pair.
        low: The lower end of the mean's 95 % confidence interval; NaN where there is none. It covers the chance of the
            seeds, if there are two pairs at least, and that of the images, if ``images`` is above 0.
        high: The upper end of that interval.
        p: The p-value of the two-sided test that belongs to the interval, corrected for the number of groups that are
            compared; NaN where there is no interval.
        images: The number of images, or of groups of them, that the interval rests on; 0 if it rests on seeds alone.
        spread: What the interval was computed from; None where there is none.
        seeds_low: The lower end of Student's t interval over the seeds alone; NaN below two pairs.
        seeds_high: The upper end of that interval.
        seeds_p: The p-value of the paired t-test over the seeds alone, not corrected; NaN below two pairs.
        wilcoxon_p: The p-value of Wilcoxon's signed-rank test over the seeds, not corrected; NaN below six pairs.
        equivalence_p: The p-value of the test that the difference is within the margin, corrected like ``p``; NaN
            without a margin or an interval.
        is_tie: Whether both have the same value in every pair.
        is_constant: Whether all pairs have the same difference, which is not 0, so that they say nothing about chance.
        over_folds: Whether the pairs are folds, whose training images overlap.
    """

    pairs: int
    mean: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    images: int = 0
    spread: Spread | None = None
    seeds_low: float = math.nan
    seeds_high: float = math.nan
    seeds_p: float = math.nan
    wilcoxon_p: float = math.nan
    equivalence_p: float = math.nan
    is_tie: bool = False
    is_constant: bool = False
    over_folds: bool = False


@dataclass(frozen=True)
class Drawn:
    """The metric of each training in the same drawings of images.

    Attributes:
        by_seed: The metric of each seed in each of R drawings, R float64.
        images: The number of images or groups that were drawn from.
    """

    by_seed: Mapping[str, np.ndarray]
    images: int


def paired_difference(
    values: Mapping[str, float],
    reference: Mapping[str, float],
    drawn: Drawn | None = None,
    drawn_reference: Drawn | None = None,
    *,
    margin: float | None = None,
    overlap: float | None = None,
) -> Difference:
    """Return the mean difference over common seeds with its interval, p not yet corrected.

    With ``drawn``, the interval covers seeds and images (see `fcnlab.comparison.resampling`), of a single pair only the
    images; without, it is Student's t interval (1908) over the seeds.

    Args:
        values: The value of each seed.
        reference: The value of each seed that is subtracted.
        drawn: The value of each seed in the drawings of images; None if the images are not known.
        drawn_reference: The same of the reference.
        margin: The largest difference that does not matter; None: equivalence is not tested.
        overlap: The number of validation images for each training image, if the pairs are folds, whose training images
            overlap; None if they are not.
    """
    seeds = sorted(values.keys() & reference.keys())
    differences = np.array([values[seed] - reference[seed] for seed in seeds])
    over_folds = overlap is not None
    if not seeds:
        return Difference(0, math.nan)
    mean = statistics.fmean(differences)
    found = Difference(len(seeds), mean, over_folds=over_folds)
    size = max(abs(value[seed]) for value in (values, reference) for seed in seeds)
    if len(seeds) > 1:
        spread = spread_over_seeds(differences, overlap or 0.0)
        found = _with_seeds(found, spread, differences, size, margin)
        if found.is_tie or found.is_constant:
            return found
        found = replace(found, spread=spread)
    if drawn is not None and drawn_reference is not None and not over_folds:
        both = np.stack([drawn.by_seed[seed] - drawn_reference.by_seed[seed] for seed in seeds], axis=1)
        if len(seeds) > 1:
            spread = spread_over_both(differences, both, drawn.images)
        else:
            spread = spread_over_images(both[:, 0], drawn.images)
        if spread is not None and spread.error > 0:
            found = replace(found, spread=spread, images=drawn.images)
    if found.spread is None:
        return replace(found, is_tie=mean == 0)
    low, high, p = _student(mean, found.spread)
    return replace(found, low=low, high=high, p=p, equivalence_p=_equivalence(mean, found.spread, margin))


def _with_seeds(
    found: Difference, spread: Spread, differences: np.ndarray, size: float, margin: float | None
) -> Difference:
    """Add what the seeds alone say: the t interval and test, and Wilcoxon's test."""
    if not differences.any():
        return replace(found, low=0.0, high=0.0, p=1.0, seeds_low=0.0, seeds_high=0.0, seeds_p=1.0, is_tie=True)
    if np.ptp(differences) <= ROUNDING * size or spread.error == 0:
        # A t-test would divide by the rounding. That all signs agree by chance has this probability.
        sign = 2.0 ** (1 - len(differences))
        found = replace(found, p=sign, seeds_p=sign, wilcoxon_p=signed_rank_p(differences), is_constant=True)
        # That all are on the same side of the margin by chance has half of it.
        return found if margin is None else replace(found, equivalence_p=sign / 2 if abs(found.mean) < margin else 1.0)
    low, high, p = _student(found.mean, spread)
    wilcoxon = math.nan if found.over_folds else signed_rank_p(differences)  # folds are not independent
    return replace(found, seeds_low=low, seeds_high=high, seeds_p=p, wilcoxon_p=wilcoxon)


def _student(mean: float, spread: Spread) -> tuple[float, float, float]:
    """Return the interval and the p-value of the two-sided test."""
    half = float(quantile((1 + CONFIDENCE) / 2, spread.freedom)) * spread.error
    return mean - half, mean + half, float(2 * tail(abs(mean) / spread.error, spread.freedom))


def _equivalence(mean: float, spread: Spread, margin: float | None) -> float:
    """Return the larger p-value of two one-sided tests against the ends of the margin (TOST, Schuirmann 1987)."""
    if margin is None:
        return math.nan
    return float(tail((margin - abs(mean)) / spread.error, spread.freedom))


def adjusted(differences: Sequence[Difference], comparisons: int | None = None) -> list[Difference]:
    """Correct each p for the number of comparisons (Holm 1979): the smallest by all, the next by one fewer, ...

    Args:
        differences: The differences from one reference.
        comparisons: The number of comparisons that might have been made; None: as many as there are differences with
            a p. Where the reference was chosen by the same numbers, as the best group is, it might have been any, so
            that all pairs of groups count.
    """
    found = list(differences)
    for name in ("p", "equivalence_p"):
        values = [getattr(difference, name) for difference in found]
        ranked = sorted((index for index, p in enumerate(values) if not math.isnan(p)), key=lambda index: values[index])
        largest, count = 0.0, max(comparisons or 0, len(ranked))
        for rank, index in enumerate(ranked):
            largest = max(largest, min(1.0, (count - rank) * values[index]))
            found[index] = replace(found[index], **{name: largest})
    return found
