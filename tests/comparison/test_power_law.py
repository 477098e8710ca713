"""The power law is found again in exact points, and its intervals cover the truth in noisy ones."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from fcnlab.comparison.power_law import fit

SIZES = np.array([3, 6, 12, 24, 30])


def law(n, limit, factor, exponent):
    return limit - factor * n**-exponent


@pytest.mark.parametrize("truth", [(0.8, 0.6, 0.5), (0.9, 2.0, 1.2), (0.7, 0.4, 0.2), (0.5, -0.3, 0.7)])
def test_exact_points_give_the_law_itself(truth):
    found = fit(SIZES, law(SIZES, *truth), ["0"] * 5)
    assert (found.limit, found.factor, found.exponent) == pytest.approx(truth, rel=1e-6)
    gain = found.gain(30, 60)
    assert gain.value == pytest.approx(law(60, *truth) - law(30, *truth), rel=1e-6)
    assert gain.low == pytest.approx(gain.high, abs=1e-6)
    assert found.at(45).value == pytest.approx(law(45, *truth))


def test_noisy_points_give_the_least_squares_of_another_program():
    random = np.random.default_rng(3)
    scores = law(SIZES, 0.8, 0.6, 0.5) + random.normal(0, 0.01, 5)
    found = fit(SIZES, scores, ["0"] * 5)
    other, _ = curve_fit(law, SIZES, scores, p0=(0.8, 0.6, 0.5))
    assert [found.at(size).value for size in (5, 30, 60)] == pytest.approx(
        [law(size, *other) for size in (5, 30, 60)], abs=1e-3
    )  # the exponents of the grid are 0.01 apart


def test_an_offset_of_each_seed_changes_no_gain():
    random = np.random.default_rng(4)
    scores = law(np.tile(SIZES, 3), 0.8, 0.6, 0.5) + random.normal(0, 0.01, 15)
    seeds = np.repeat(["0", "1", "2"], 5)
    plain, moved = (
        fit(np.tile(SIZES, 3), scores, seeds),
        fit(np.tile(SIZES, 3), scores + np.repeat([0, 9, -4], 5), seeds),
    )
    one, other = plain.gain(30, 60), moved.gain(30, 60)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-6)
    assert plain.freedom == 15 - 3 - 2


def test_the_weights_of_the_points_sum_up_to_the_gain():
    random = np.random.default_rng(5)
    scores = law(SIZES, 0.8, 0.6, 0.5) + random.normal(0, 0.01, 5)
    found = fit(SIZES, scores, ["0"] * 5)
    assert found.weights(30, 60) @ scores == pytest.approx(found.gain(30, 60).value)


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_of_a_gain_covers_the_truth_in_95_percent(exponent, seeds):
    random = np.random.default_rng(seeds)
    sizes, blocks, runs = np.tile(SIZES, seeds), np.repeat(np.arange(seeds).astype(str), 5), 400
    truth = law(60, 0.8, 0.6, exponent) - law(30, 0.8, 0.6, exponent)
    covered = 0
    for _ in range(runs):
        offsets = np.repeat(random.normal(0, 0.02, seeds), 5)
        gain = fit(sizes, law(sizes, 0.8, 0.6, exponent) + offsets + random.normal(0, 0.01, len(sizes)), blocks).gain(
            30, 60
        )
        covered += gain.low <= truth <= gain.high
    assert 0.92 <= covered / runs <= 0.99


def test_points_that_leave_no_freedom_give_no_interval():
    gain = fit([3, 6, 12], [0.5, 0.6, 0.65], ["0"] * 3).gain(12, 24)
    assert gain.value > 0
    assert np.isnan(gain.low)
    assert np.isnan(gain.high)


def test_fewer_than_three_sizes_are_refused():
    with pytest.raises(ValueError, match="2 sizes, where a power law needs 3"):
        fit([3, 6, 3, 6], [0.5, 0.6, 0.5, 0.6], ["0", "0", "1", "1"])
    with pytest.raises(ValueError, match="no seed has two sizes"):
        fit([3, 6, 12], [0.5, 0.6, 0.7], ["0", "1", "2"])
