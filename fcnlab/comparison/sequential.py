"""A comparison of two networks that looks after each pair of trainings, and knows when to stop.

Whoever looks at a p-value after each pair, and stops at the first below 5 %, finds a difference that is not there far
more often than in 5 % of studies. A group-sequential test (Jennison & Turnbull, "Group Sequential Methods", 2000) has a
smaller level at each look, so that all looks together keep to 5 %. How much of the 5 % may be spent up to look n of N
is stated beforehand, by the power family of Kim & DeMets (Biometrika 74, 1987): 0.05 (n / N) ** ``power``. The levels
are those of Student's t, whose law without a difference is known, and are found by simulating it: for few pairs, the
usual levels for a known variance would be wrong.

Three things end a study: a difference that is more than chance, equivalence within a margin, or the little hope that
one of both will be found with all pairs that are allowed. The first two keep to 5 % each; where a look finds both, the
difference does not matter, and the study ends with equivalence. The third claims nothing, and as the levels do not
count on it, it costs power and no error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from fcnlab.comparison.significance import ROUNDING
from fcnlab.comparison.student import quantile, tail

Decision = Literal["different", "equivalent", "futile", "undecided", "continue"]

ALPHA = 0.05
"""The error that all looks together may make: a difference where there is none, or equivalence where there is none."""

_PATHS = 200_000  # the error of a level is then 1 to 2 %
_GRID = np.concatenate([np.arange(-2.0, 12.0, 0.25), [16.0, 32.0, 64.0, np.inf]])
_FORECASTS = 1000


@dataclass(frozen=True)
class Look:
    """What was known after a number of pairs.

    Attributes:
        pairs: The number of pairs.
        mean: The mean difference.
        low: The lower end of the repeated confidence interval, which covers at all looks together in 95 %; NaN before
            the first look.
        high: The upper end of that interval.
        p: The p-value of the two-sided t-test of these pairs; NaN before the first look.
        level: The level below which it means a difference; NaN before the first look.
        equivalence_p: The p-value of the two one-sided tests against the margin; NaN without one.
        equivalence_level: The level below which that means equivalence; NaN without a margin.
        hope: The probability, as foreseen from these pairs, that a later look decides; NaN before the first look.
        decision: What follows.
    """

    pairs: int
    mean: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    level: float = math.nan
    equivalence_p: float = math.nan
    equivalence_level: float = math.nan
    hope: float = math.nan
    decision: Decision = "continue"


@dataclass(frozen=True)
class Design:
    """When a study of pairs may stop.

    Args:
        max_pairs: The number of pairs at most, N.
        min_pairs: The number of pairs before the first look, at least 2.
        power: The power of the spending function: 1 spends evenly, more spends later.
        least_hope: The probability of a decision below which a study is futile; 0 never gives up.
    """

    max_pairs: int
    min_pairs: int = 3
    power: float = 1.5
    least_hope: float = 0.1
    _seed: int = field(default=0, repr=False)

    @cached_property
    def levels(self) -> dict[int, float]:
        """The level of the two-sided t-test at each look, by the number of pairs."""
        return self._spend(two_sided=True)

    @cached_property
    def equivalence_levels(self) -> dict[int, float]:
        """The level of each of the two one-sided tests at each look, by the number of pairs."""
        return self._spend(two_sided=False)

    def look(self, differences: Sequence[float], margin: float | None, size: float = 0.0) -> Look:
        """Return what differences mean, all of which were looked at before, one after the other.

        Args:
            differences: The difference of each pair, in the order in which they were trained.
            margin: The largest difference that does not matter; None if every difference matters.
            size: The largest absolute value that was subtracted, of whose rounding no spread is made.
        """
        values = np.asarray(differences, dtype=np.float64)
        count, mean = len(values), float(np.mean(values))
        if count < self.min_pairs:
            return Look(count, mean)
        deviation = float(np.std(values, ddof=1))
        size = max(size, float(np.abs(values).max()))
        if np.ptp(values) <= ROUNDING * size or deviation == 0:  # equal differences: a t-test would divide by rounding
            return Look(count, mean, decision="continue" if count < self.max_pairs else "undecided")
        error, level = deviation / math.sqrt(count), self.levels[count]
        half = float(quantile(1 - level / 2, count - 1)) * error
        p = float(2 * tail(abs(mean) / error, count - 1))
        inside, equivalence_p, equivalence_level = -np.inf, math.nan, math.nan
        if margin is not None:
            inside, equivalence_level = (margin - abs(mean)) / error, self.equivalence_levels[count]
            equivalence_p = float(tail(inside, count - 1))
        hope = self._hope(count, abs(mean) / error, inside)
        decision: Decision = "continue"
        if equivalence_p < equivalence_level:  # also if it is more than chance, as in `fcnlab.comparison.verdict`
            decision = "equivalent"
        elif p < level:
            decision = "different"
        elif count >= self.max_pairs:
            decision = "undecided"
        elif hope < self.least_hope:
            decision = "futile"
        return Look(
            *(count, mean, mean - half, mean + half, p, level, equivalence_p, equivalence_level, hope),
            decision=decision,
        )

    def _hope(self, count: int, t: float, inside: float) -> float:
        """Return the probability that a later look decides, foreseen from the statistics of both tests."""
        if count >= self.max_pairs:
            return 0.0
        _, different, equivalent = self._forecasts[count]
        found = float(np.interp(t, _GRID, different))
        if math.isfinite(inside):
            found += float(np.interp(inside, _GRID, equivalent))
        return min(found, 1.0)

    def _spend(self, two_sided: bool) -> dict[int, float]:
        differences = np.random.default_rng(self._seed).normal(size=(_PATHS, self.max_pairs))
        going, spent, levels = np.ones(_PATHS, bool), 0.0, {}
        for count, statistics in enumerate(_t_paths(differences), start=1):
            if count < self.min_pairs:
                continue
            t = np.abs(statistics) if two_sided else statistics
            allowed = int((ALPHA * (count / self.max_pairs) ** self.power - spent) * _PATHS)
            critical = float(np.partition(t[going], -allowed - 1)[-allowed - 1])
            levels[count] = float(tail(critical, count - 1)) * (2 if two_sided else 1)
            crossed = going & (t > critical)
            spent += float(crossed.mean())
            going &= ~crossed
        return levels

    @cached_property
    def _forecasts(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each look, the probability of both decisions at later ones, for each value of a statistic on a grid.

        The true difference and deviation are drawn as the pairs so far leave them open: by Student's t and chi squared.
        """
        random, found = np.random.default_rng(self._seed + 1), {}
        grid = _GRID[:-1, np.newaxis]
        for count in range(self.min_pairs, self.max_pairs):
            later = self.max_pairs - count
            deviation = np.sqrt((count - 1) / random.chisquare(count - 1, _FORECASTS))
            truth = grid / math.sqrt(count) + deviation / math.sqrt(count) * random.normal(size=_FORECASTS)
            total, squares = grid * math.sqrt(count), (count - 1) + grid**2  # of the pairs so far, of deviation 1
            total, squares = np.broadcast_to(total, truth.shape), np.broadcast_to(squares, truth.shape)
            different, equivalent = np.zeros(truth.shape, bool), np.zeros(truth.shape, bool)
            for number in range(count + 1, count + later + 1):
                value = truth + deviation * random.normal(size=_FORECASTS)
                total, squares = total + value, squares + value**2
                variance = np.maximum(squares - total**2 / number, 1e-12) / (number - 1)
                t = total / number / np.sqrt(variance / number)
                different |= np.abs(t) > quantile(1 - self.levels[number] / 2, number - 1)
                equivalent |= t > quantile(1 - self.equivalence_levels[number], number - 1)
            found[count] = (_GRID, *(np.append(hits.mean(axis=1), 1.0) for hits in (different, equivalent)))
        return found


def _t_paths(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the t statistic of many studies after each number of pairs, R; it is not finite after the first pair.

    Only one look is in memory at a time, since a hundred of them would take a gigabyte.

    Args:
        values: The differences of the studies, R x N.
    """
    total, squares = np.zeros(len(values)), np.zeros(len(values))
    for count in range(1, values.shape[1] + 1):
        column = values[:, count - 1]
        total, squares = total + column, squares + column**2
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = np.maximum(squares - total**2 / count, 0) / (count - 1)
            yield total / count / np.sqrt(variance / count)
