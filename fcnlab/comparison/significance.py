"""Whether a difference is more than chance: Student's paired t-test over seeds, with Holm's correction."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How one group differs from another, over the seeds that both have.

    The same seed gives both the same order of images, augmentation and, as far as their layers agree, initial weights:
    their common influence cancels out in each pair.

    Attributes:
        pairs: The number of common seeds.
        mean: The mean of the differences; NaN without a pair.
        low: The lower end of the mean's 95 % confidence interval; NaN below two pairs.
        high: The upper end of that interval.
        p: The p-value of the two-sided paired t-test, corrected for the number of groups that are compared; NaN below
            two pairs.
    """

    pairs: int
    mean: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def paired_difference(values: Mapping[str, float], reference: Mapping[str, float]) -> Difference:
    """Return the mean difference over common seeds with its t interval (Student 1908), p not yet corrected.

    Args:
        values: The value of each seed.
        reference: The value of each seed that is subtracted.
    """
    seeds = sorted(values.keys() & reference.keys())
    differences = [values[seed] - reference[seed] for seed in seeds]
    if len(differences) < 2:
        return Difference(len(seeds), differences[0] if differences else math.nan)
    from scipy import stats

    mean, freedom = statistics.fmean(differences), len(differences) - 1
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    with np.errstate(divide="ignore", invalid="ignore"):  # where all differences are the same, p is 0 or 1
        p = float(2 * stats.t.sf(np.abs(np.float64(mean)) / error, freedom))
    p = 1.0 if math.isnan(p) else p
    return Difference(len(seeds), mean, mean - half, mean + half, p)


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """Correct each p for the number of differences (Holm 1979): the smallest by all, the next by one fewer, ..."""
    ranked = sorted(
        (index for index, difference in enumerate(differences) if not math.isnan(difference.p)),
        key=lambda index: differences[index].p,
    )
    found = list(differences)
    largest = 0.0
    for rank, index in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * differences[index].p))
        found[index] = replace(differences[index], p=largest)
    return found
