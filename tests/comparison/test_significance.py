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


def test_the_same_value_in_every_pair_is_a_tie():
    found = paired_difference(by_seed([0.5, 0.25]), by_seed([0.5, 0.25]))
    assert (found.low, found.high, found.p, found.is_tie, found.is_constant) == (0, 0, 1, True, False)


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_the_same_difference_in_every_pair_says_no_more_than_its_sign(seeds):
    """They differ by rounding, by which a t-test would divide; all signs agree by chance in 2 of 2 ** n."""
    values, base = [0.8, 0.9, 0.4, 0.5, 0.3, 0.7][:seeds], [0.7, 0.8, 0.3, 0.4, 0.2, 0.6][:seeds]
    assert len({one - other for one, other in zip(values, base, strict=True)}) > 1
    found = paired_difference(by_seed(values), by_seed(base))
    assert (found.p, found.is_constant) == (2.0 ** (1 - seeds), True)
    assert math.isnan(found.low)


def test_folds_share_training_images():
    """By hand: 5 folds, of which each has a quarter as many images to validate on as to train on."""
    differences = np.array([0.02, 0.01, 0.04, 0.03, 0.00])
    found = paired_difference(by_seed(differences), by_seed(np.zeros(5)), overlap=1 / 4)
    variance = sum((value - 0.02) ** 2 for value in differences) / 4
    half = 2.776445 * math.sqrt(variance * (1 / 5 + 1 / 4))
    assert (found.low, found.high) == (pytest.approx(0.02 - half, abs=1e-7), pytest.approx(0.02 + half, abs=1e-7))
    assert found.p == pytest.approx(2 * stats.t.sf(0.02 / math.sqrt(variance * 0.45), 4))
    assert (found.over_folds, found.images) == (True, 0)
    assert paired_difference(by_seed(differences), by_seed(np.zeros(5))).p < found.p


def test_equivalence_is_two_one_sided_tests():
    random = np.random.default_rng(0)
    one, other = random.normal(0.7, 0.004, 6), random.normal(0.7, 0.004, 6)
    found = paired_difference(by_seed(one), by_seed(other), margin=0.01)
    above = stats.ttest_1samp(one - other, -0.01, alternative="greater").pvalue
    below = stats.ttest_1samp(one - other, 0.01, alternative="less").pvalue
    assert found.equivalence_p == pytest.approx(max(above, below))
    assert math.isnan(paired_difference(by_seed(one), by_seed(other)).equivalence_p)


def test_holm_by_hand():
    # 0.01 by 4; 0.02 by 3; 0.03 by 2 is 0.06, as is 0.02 by 3; 0.9 by 1; what has no p stays and does not count.
    given = [Difference(3, 0.0, p=p) for p in (0.03, 0.01, math.nan, 0.9, 0.02)]
    found = [difference.p for difference in adjusted(given)]
    assert found[:2] == [pytest.approx(0.06), pytest.approx(0.04)]
    assert math.isnan(found[2])
    # Of 10 comparisons that might have been made, the smallest counts 10 times, the next 9 times, ...
    assert [found.p for found in adjusted(given, 10)][:2] == [pytest.approx(0.24), pytest.approx(0.1)]
    assert found[3:] == [pytest.approx(0.9), pytest.approx(0.06)]
