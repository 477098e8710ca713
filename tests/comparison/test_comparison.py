"""The best of made-up trainings, and how the others differ."""

import math
import random
import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_trials import BASE, by_arch, by_seed, trial
from scipy import stats

from fcnlab.comparison import compare
from fcnlab.comparison.trials import Trial
from fcnlab.core.errors import ConfigError


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_trainings_does_not_matter(values, shuffler: random.Random):
    trials = by_arch({"fcn32s": values[:3], "fcn16s": values[3:]})
    shuffled = list(trials)
    shuffler.shuffle(shuffled)
    one, other = compare(trials), compare(shuffled)
    assert [group.label for group in one.groups] == [group.label for group in other.groups]
    for first, second in zip(one.groups, other.groups, strict=True):
        assert first.values("val/mean_iou") == second.values("val/mean_iou")
    assert one.best_trial == other.best_trial
    assert str(one.differences) == str(other.differences)
    assert one.groups[0].mean("val/mean_iou") == pytest.approx(statistics.fmean(values[:3]))


def test_a_low_loss_is_the_better_one():
    trials = [
        Trial("a", "a", "FINISHED", {**BASE, "arch.name": name}, {"val/loss": loss})
        for name, loss in (("fcn8s", 0.2), ("fcn16s", 0.4))
    ]
    found = compare(trials, "val/loss")
    assert found.best.label == "fcn8s"
    assert found.differences["fcn16s"].mean == pytest.approx(0.2)


def test_the_baseline_is_what_the_others_are_compared_with():
    trials = by_arch({"fcn32s": [0.5, 0.6], "fcn8s": [0.7, 0.9]})
    found = compare(trials, baseline="arch=fcn32s")
    assert found.reference.label == "fcn32s"
    assert found.differences["fcn8s"].mean == pytest.approx(0.25)
    assert compare(trials, baseline="fcn32s").reference == found.reference
    with pytest.raises(ConfigError, match=r"baseline=arch=fcn4s: fits 0 groups .*arch\.name=fcn32s"):
        compare(trials, baseline="arch=fcn4s")


def test_a_lucky_seed_makes_no_best():
    """A seed that fcn8s does not have makes the mean of fcn16s better, but fcn8s wins on every common seed."""
    lucky = by_seed({"fcn8s": {1: 0.700, 2: 0.712, 3: 0.721}, "fcn16s": {1: 0.601, 2: 0.612, 9: 0.99}})
    found = compare(lucky)
    assert found.groups[0].mean("val/mean_iou") > found.groups[1].mean("val/mean_iou")
    assert (found.best.label, found.reference.label) == ("fcn8s", "fcn8s")
    assert (found.differences["fcn8s"].pairs, found.differences["fcn8s"].mean) == (3, 0.0)
    assert (found.differences["fcn16s"].pairs, found.differences["fcn16s"].mean) == (2, pytest.approx(-0.0995))
    assert found.best_trial.seed == "9"


@given(
    st.lists(st.dictionaries(st.integers(0, 4), st.integers(0, 8), min_size=1), min_size=2, max_size=4), st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_no_other_group_beats_the_best(values, higher):
    """Every pair of groups is compared here, in exact fractions."""
    sign, metric = (1, "val/mean_iou") if higher else (-1, "val/loss")
    names = [f"fcn{2 ** (index + 1)}s" for index in range(len(values))]
    trials = [
        Trial(
            f"{name}-{seed}", f"{name}-{seed}", "FINISHED", {**BASE, "arch.name": name, "seed": str(seed)}, {metric: v}
        )
        for name, group in zip(names, values, strict=True)
        for seed, v in group.items()
    ]

    def beats(one, other):
        seeds = one.keys() & other.keys()
        if seeds:
            return sign * sum(one[seed] - other[seed] for seed in seeds) > 0
        return sign * Fraction(sum(one.values()), len(one)) > sign * Fraction(sum(other.values()), len(other))

    unbeaten = {
        name: sign * Fraction(sum(group.values()), len(group))
        for name, group in zip(names, values, strict=True)
        if not any(beats(other, group) for other in values if other is not group)
    }
    found = compare(trials, metric)
    if unbeaten:
        assert unbeaten[found.best.label] == max(unbeaten.values())
    else:
        assert found.best is None
    assert any("no group is the best" in warning for warning in found.warnings) == (not unbeaten)


def test_in_a_circle_no_group_is_the_best():
    """Stone, scissors, paper: each pair has one seed in common, and each group loses there once."""
    found = compare(by_seed({"fcn8s": {1: 0.9, 2: 0.1}, "fcn16s": {2: 0.2, 3: 0.1}, "fcn32s": {3: 0.2, 1: 0.5}}))
    assert found.best is None
    assert found.reference.label == "fcn8s"  # of the best mean, 0.5
    assert found.best_trial.metrics["val/mean_iou"] == 0.9
    assert {label: difference.pairs for label, difference in found.differences.items()} == {
        **{"fcn8s": 2, "fcn16s": 1, "fcn32s": 1}
    }
    assert any("no group is the best" in warning and "seeds differ" in warning for warning in found.warnings)


def test_without_a_common_seed_the_means_decide():
    found = compare(by_seed({"fcn8s": {1: 0.5, 2: 0.7}, "fcn16s": {3: 0.65}}))
    assert found.best.label == "fcn16s"
    assert found.differences["fcn8s"].pairs == 0
    assert any("without a common seed" in warning for warning in found.warnings)


def test_on_a_tie_over_common_seeds_the_mean_decides():
    found = compare(by_seed({"fcn8s": {1: 0.5, 2: 0.25}, "fcn16s": {1: 0.5, 3: 0.75}}))
    assert found.best.label == "fcn16s"


def test_the_winner_is_corrected_for_and_a_baseline_is_not():
    """With two other groups, the smaller p is doubled; the best group might have been any, in 3 pairs."""
    values = {"fcn8s": [0.7, 0.8, 0.75], "fcn16s": [0.65, 0.72, 0.71], "fcn32s": [0.5, 0.6, 0.4]}
    raw = {name: stats.ttest_rel(values[name], values["fcn8s"]).pvalue for name in ("fcn16s", "fcn32s")}
    smaller = min(raw, key=raw.get)
    found = compare(by_arch(values), baseline="fcn8s").differences
    assert found[smaller].p == pytest.approx(2 * raw[smaller])
    chosen = compare(by_arch(values))
    assert chosen.reference.label == "fcn8s"
    assert chosen.differences[smaller].p == pytest.approx(3 * raw[smaller])
    assert (found["fcn8s"].pairs, found["fcn8s"].mean) == (3, 0.0)
    assert math.isnan(found["fcn8s"].p)


def test_close_settings_keep_labels_of_their_own():
    """Both rates have the same six digits, and a difference is found by its group's label."""
    trials = [
        trial(value, optimizer__lr=lr) for lr, value in ((0.00012345671, 0.5), (0.00012345672, 0.75), (0.1, 0.25))
    ]
    found = compare(trials)
    assert [group.label for group in found.groups] == [
        *("optimizer.lr=0.00012345671", "optimizer.lr=0.00012345672", "optimizer.lr=0.1")
    ]
    assert [found.differences[group.label].mean for group in found.groups] == [-0.25, 0.0, -0.5]


def test_nothing_measured_is_no_best():
    found = compare([trial(None)])
    assert found.best is None
    assert found.best_trial is None
    assert not found.differences
