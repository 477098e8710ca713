"""A study that looks after each pair errs in 5 % at most, and needs fewer trainings."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from fcnlab.comparison import sequential
from fcnlab.comparison.sequential import Design

DESIGN = Design(max_pairs=12)


def ends(design, effect, margin, studies, seed=1):
    """Return the last look of made-up studies, whose differences have a mean of ``effect`` standard deviations."""
    found = []
    for values in np.random.default_rng(seed).normal(effect, 1, (studies, design.max_pairs)):
        for count in range(1, design.max_pairs + 1):
            look = design.look(values[:count], margin)
            if look.decision != "continue":
                break
        found.append(look)
    return found


def share(looks, decision):
    return np.mean([look.decision == decision for look in looks])


def trainings(looks):
    return 2 * np.mean([look.pairs for look in looks])


def test_a_difference_where_there_is_none_is_found_in_five_percent_at_most():
    assert share(ends(DESIGN, 0.0, None, 800), "different") <= 0.05


def test_equivalence_where_the_difference_is_the_margin_is_found_in_five_percent_at_most():
    looks = ends(DESIGN, 2.0, 2.0, 500)
    assert share(looks, "equivalent") <= 0.05
    assert share(looks, "different") > 0.9


def test_it_needs_two_fifths_fewer_trainings_than_ten_seeds_at_the_same_power():
    """At 2.2 standard deviations of a difference, 10 seeds always find it, and 20 trainings are more than it takes."""
    looks = ends(DESIGN, 2.2, None, 400)
    fixed = np.random.default_rng(2).normal(2.2, 1, (20_000, 10))
    power = np.mean(stats.ttest_1samp(fixed, 0, axis=1).pvalue < 0.05)
    assert share(looks, "different") >= power - 0.005
    assert trainings(looks) <= 0.6 * 20


def test_without_the_levels_of_the_looks_it_would_err_more_often():
    """The plain t-test at each look, which this replaces, errs three times as often; the levels spend exactly 5 %."""
    values = np.random.default_rng(3).normal(size=(40_000, 12))
    p = np.stack([stats.ttest_1samp(values[:, :count], 0, axis=1).pvalue for count in range(3, 13)], axis=1)
    assert (p < 0.05).any(axis=1).mean() > 0.14
    levels = np.array([DESIGN.levels[count] for count in range(3, 13)])
    assert (p < levels).any(axis=1).mean() == pytest.approx(0.05, abs=0.004)
    for count in (3, 6, 12):  # and up to each look, what the spending function allows
        assert (p < levels)[:, : count - 2].any(axis=1).mean() == pytest.approx(0.05 * (count / 12) ** 1.5, abs=0.003)


def test_a_look_by_hand():
    values = [0.02, 0.03, 0.025, 0.03]
    look = DESIGN.look(values, 0.01)
    t = np.mean(values) / (np.std(values, ddof=1) / 2)
    half = stats.t.ppf(1 - DESIGN.levels[4] / 2, 3) * np.std(values, ddof=1) / 2
    assert look.p == pytest.approx(2 * stats.t.sf(t, 3))
    assert (look.low, look.high) == (pytest.approx(np.mean(values) - half), pytest.approx(np.mean(values) + half))
    assert (look.decision == "different") == (look.low > 0) == (look.p < look.level)
    assert look.equivalence_p > 0.5
    assert math.isnan(DESIGN.look(values[:2], 0.01).p)


def test_a_difference_that_is_more_than_chance_and_does_not_matter_is_equivalent():
    """A comparison with the same margin says so, too."""
    values = [0.0020, 0.0021, 0.0019]
    assert DESIGN.look(values, None).decision == "different"
    assert DESIGN.look(values, 0.01).decision == "equivalent"


def test_equal_differences_decide_nothing():
    assert DESIGN.look([0.25] * 4, 0.5).decision == "continue"
    assert DESIGN.look([0.0] * 12, 0.5).decision == "undecided"
    rounded = [one - other for one, other in ((0.41, 0.409), (0.4816, 0.4806), (0.5378, 0.5368))]
    assert len(set(rounded)) == 3  # they are 0.001 but for the rounding of the values
    assert DESIGN.look(rounded, None, 0.93).decision == "continue"


def test_what_cannot_be_decided_any_more_is_futile():
    random = np.random.default_rng(0)
    look = DESIGN.look(random.normal(0, 1, 10), None)
    assert (look.decision, look.hope < 0.1) == ("futile", True)
    patient = Design(12, least_hope=0.0)
    assert patient.look(random.normal(0, 1, 10), None).decision == "continue"


def test_the_levels_of_many_looks_take_little_more_memory_than_their_differences(monkeypatch):
    monkeypatch.setattr(sequential, "_PATHS", 2000)
    tracemalloc.start()
    try:
        assert len(Design(max_pairs=100).levels) == 98
        assert tracemalloc.get_traced_memory()[1] < 2 * 2000 * 100 * 8
    finally:
        tracemalloc.stop()
