"""The t interval and Holm's correction, against scipy's own test and numbers worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from fcnlab.comparison.significance import Difference, adjusted, paired_difference


def by_seed(values):
    return {str(seed): value for seed, value in enumerate(values)}


def test_worked_by_hand():
    # Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, error 0.1 / sqrt(3); t of two degrees of freedom is 4.302653.
    found = paired_difference(by_seed([0.5, 0.7, 0.9]), by_seed([0.4, 0.5, 0.6]))
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (found.pairs, found.mean) == (3, pytest.approx(0.2))
    assert (found.low, found.high) == (pytest.approx(0.2 - half, abs=1e-6), pytest.approx(0.2 + half, abs=1e-6))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_against_the_paired_test_of_scipy(count):
    random = np.random.default_rng(count)
    one, other = random.normal(0.7, 0.05, count), random.normal(0.68, 0.05, count)
    found, expected = paired_difference(by_seed(one), by_seed(other)), stats.ttest_rel(one, other)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_only_common_seeds_count():
    found = paired_difference({"1": 0.5, "2": 0.6, "7": 0.0}, {"1": 0.4, "2": 0.4, "8": 1.0})
    assert (found.pairs, found.mean) == (2, pytest.approx(0.15))


def test_below_two_pairs_there_is_no_interval():
    one = paired_difference({"1": 0.5}, {"1": 0.4})
    assert one.mean == pytest.approx(0.1)
    assert math.isnan(one.low)
    assert math.isnan(one.p)
    assert math.isnan(paired_difference({"1": 0.5}, {"2": 0.4}).mean)


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.125, 0.0)])
def test_the_same_difference_in_every_pair(shift, p):
    found = paired_difference(by_seed([0.5 + shift, 0.25 + shift]), by_seed([0.5, 0.25]))
    assert (found.low, found.high, found.p) == (shift, shift, p)


def test_holm_by_hand():
    # 0.01 by 4; 0.02 by 3; 0.03 by 2 is 0.06, as is 0.02 by 3; 0.9 by 1; what has no p stays and does not count.
    given = [Difference(3, 0.0, p=p) for p in (0.03, 0.01, math.nan, 0.9, 0.02)]
    found = [difference.p for difference in adjusted(given)]
    assert found[:2] == [pytest.approx(0.06), pytest.approx(0.04)]
    assert math.isnan(found[2])
    assert found[3:] == [pytest.approx(0.9), pytest.approx(0.06)]
