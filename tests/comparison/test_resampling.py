"""Intervals over seeds and images cover as often as they say."""

import numpy as np
import pytest
from simulated_chance import coverage_of_iou, coverage_of_means

from fcnlab.comparison.resampling import ImageDraws, spread_over_both, spread_over_images, spread_over_seeds


@pytest.mark.parametrize(("seeds", "images"), [(3, 6), (3, 100), (10, 6)])
def test_intervals_cover(seeds, images):
    assert 0.93 <= coverage_of_means(seeds, images, 700) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("images", [6, 10, 30, 100])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_for_all_numbers_of_seeds_and_images(seeds, images):
    found = {"means": coverage_of_means(seeds, images, 4000), "mean IoU": coverage_of_iou(seeds, images, 3000)}
    assert all(0.93 <= coverage <= 0.97 for coverage in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("parts", [{"image_part": 0.3}, {"seed_part": 0.3}, {"rest": 0.0}, {"rest": 1.5}])
@pytest.mark.parametrize(("seeds", "images"), [(3, 6), (3, 100), (10, 6), (10, 100)])
def test_intervals_never_cover_too_seldom(seeds, images, parts):
    """Where chance is mostly the rest, which both parts hold, few seeds and images have wider ones than they need."""
    assert 0.93 <= coverage_of_means(seeds, images, 2000, **parts) <= 0.985


def test_the_parts_of_an_analysis_of_variance():
    """For a metric that is a mean over images, many drawings come to the textbook's mean squares."""
    random = np.random.default_rng(0)
    values = random.normal(0, 1, (4, 1)) + random.normal(0, 2, (1, 9)) + random.normal(0, 1, (4, 9))
    rows, columns, mean = values.mean(axis=1), values.mean(axis=0), values.mean()
    of_seeds = 9 * ((rows - mean) ** 2).sum() / 3
    of_images = 4 * ((columns - mean) ** 2).sum() / 8
    rest = ((values - rows[:, np.newaxis] - columns + mean) ** 2).sum() / (3 * 8)
    found = spread_over_both(rows, ImageDraws(9, 100_000).sums(values.T) / 9, 9)
    assert found.error**2 == pytest.approx((of_seeds + of_images - rest) / 36, rel=0.02)
    assert found.per_seed / 4 == pytest.approx(of_seeds / 36)
    assert found.floor == pytest.approx((of_images - rest) / 36, rel=0.03)


def test_each_drawing_has_as_many_images_as_there_are_and_is_the_same_again():
    first, again = ImageDraws(7, 50, seed=3), ImageDraws(7, 50, seed=3)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.weights.sum(axis=1) == 7).all()
    values = np.arange(7 * 6).reshape(7, 2, 3)
    np.testing.assert_array_equal(first.sums(values), np.einsum("ri,ijk->rjk", first.weights, values))


def test_further_seeds_lower_their_own_part_alone():
    values = np.random.default_rng(0).normal(size=(2, 1)) + np.random.default_rng(1).normal(size=(1, 5))
    spread = spread_over_both(values.mean(axis=1), ImageDraws(5, 500).sums(values.T) / 5, 5)
    assert spread.floor > 0
    error, freedom = spread.with_seeds(np.array([2, 10_000_000]))
    assert error[0] == pytest.approx(spread.error)
    assert 1 < spread.freedom < freedom[0]  # which are foreseen by Satterthwaite alone
    assert error[1] == pytest.approx(np.sqrt(spread.floor), rel=1e-3)
    alone = spread_over_seeds(np.array([1.0, 3.0, 5.0]))
    error, freedom = alone.with_seeds(np.array([3, 12]))
    assert error.tolist() == [pytest.approx(alone.error), pytest.approx(alone.error / 2)]
    assert freedom.tolist() == [2, 11]


def test_where_a_metric_is_often_undefined_there_is_no_interval():
    drawn = np.full((100, 2), 0.5)
    drawn[:5] = np.nan
    assert spread_over_both(np.array([0.5, 0.6]), drawn, 10) is None
    assert spread_over_images(drawn[:, 0], 10) is None
    assert spread_over_images(drawn[5:, 0], 1) is None
