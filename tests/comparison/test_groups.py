"""Groups, axes and rankings of trainings that are made up here."""

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_trials import BASE, by_arch, trial

from fcnlab.comparison import compare
from fcnlab.errors import ConfigError
from fcnlab.tracking.trials import Trial


def test_seeds_are_repetitions_and_strides_come_in_their_order():
    found = compare(by_arch({"fcn8s": [0.7, 0.8], "fcn32s": [0.5, 0.52], "fcn16s": [0.6, 0.61], "fcn2s": [0.75, 0.9]}))
    assert [group.label for group in found.groups] == ["fcn32s", "fcn16s", "fcn8s", "fcn2s"]
    assert found.axes == ["arch.name"]  # the stride follows from the name
    assert found.best.label == "fcn2s"
    assert found.best_trial.metrics["val/mean_iou"] == 0.9
    group = found.groups[2]
    assert group.mean("val/mean_iou") == pytest.approx(0.75)
    assert group.spread("val/mean_iou") == pytest.approx(math.sqrt(0.005))  # n - 1, by hand
    assert group.mean("val/iou/cell") == pytest.approx(0.375)


def test_a_key_is_an_axis_only_where_it_tells_configurations_apart():
    trials = [
        trial(0.5, optimizer__name=name, optimizer__lr=lr, tracking__run_name=f"{name}{lr}", sweep__id=name, seed=seed)
        for name, lr in (("adam", 0.001), ("adam", 0.01), ("sgd", 0.01))
        for seed in (0, 1)
    ]
    found = compare(trials)
    assert found.axes == ["optimizer.name", "optimizer.lr"]
    assert [group.label for group in found.groups] == [
        "adam, optimizer.lr=0.001",
        "adam, optimizer.lr=0.01",
        "sgd, optimizer.lr=0.01",
    ]


def test_what_was_set_is_an_axis_even_where_another_key_tells_configurations_apart():
    """A search: no two rates are the same, so that the decay, the width and the architecture follow from them."""
    trials = [
        trial(
            0.5,
            **{"optimizer__lr": lr, "optimizer__weight_decay": decay, "arch__name": arch, "arch__width": 0.25},
            tags={"hydra.overrides": f"arch={arch} optimizer.lr={lr} optimizer.weight_decay={decay} arch.width=0.25"},
        )
        for lr, decay, arch in ((0.1, 0.01, "fcn8s"), (0.2, 0.02, "fcn16s"), (0.3, 0.01, "fcn8s"))
    ]
    assert compare(trials).axes == ["arch.name", "optimizer.lr", "optimizer.weight_decay"]
    cut = trial(0.5, optimizer__lr=0.4, tags={"hydra.overrides": "optimizer.lr=0.4 'tracking.run_name=cut"})
    assert compare([*trials, cut]).axes == ["arch.name", "arch.width", "optimizer.lr", "optimizer.weight_decay"]


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


def test_what_failed_is_counted_and_what_was_pruned_is_no_result():
    found = compare(
        [
            trial(0.5, seed=1),
            trial(None, seed=2, status="FAILED", tags={"fcnlab.reason": "loss is nan"}),
            trial(0.9, seed=3, tags={"fcnlab.pruned": "true"}),
        ]
    )
    (group,) = found.groups
    assert group.values("val/mean_iou") == [0.5]
    assert [missing.seed for missing in group.missing] == ["2", "3"]
    assert any("2 of 3" in warning for warning in found.warnings)


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING"])
def test_what_was_reached_before_the_end_is_no_result(status):
    found = compare([trial(0.5, seed=1), trial(0.9, seed=2, status=status)])
    assert found.groups[0].mean("val/mean_iou") == 0.5
    assert found.best_trial.seed == "1"
    assert any("1 of 2" in warning for warning in found.warnings)


def test_what_makes_it_unfair_is_said():
    trials = [
        trial(0.5, seed=1, tags={"git.commit": "a"}),
        trial(0.6, seed=2, digest="other", tags={"git.commit": "b"}),
    ]
    said = " ".join(compare(trials).warnings)
    assert "2 different sets of validation images" in said
    assert "2 different commits" in said
    assert not compare([trial(0.5, seed=1), trial(0.6, seed=2)]).warnings


def test_the_baseline_is_what_the_others_are_compared_with():
    trials = by_arch({"fcn32s": [0.5, 0.6], "fcn8s": [0.7, 0.9]})
    found = compare(trials, baseline="arch=fcn32s")
    assert found.reference.label == "fcn32s"
    assert found.differences["fcn8s"].mean == pytest.approx(0.25)
    assert compare(trials, baseline="fcn32s").reference == found.reference
    with pytest.raises(ConfigError, match=r"baseline=arch=fcn4s: fits 0 groups .*arch\.name=fcn32s"):
        compare(trials, baseline="arch=fcn4s")


def test_nothing_measured_is_no_best():
    found = compare([trial(None)])
    assert found.best is None
    assert found.best_trial is None
    assert not found.differences
