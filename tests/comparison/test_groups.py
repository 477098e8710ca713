"""Groups and axes of made-up trainings."""

import math

import pytest
from made_up_trials import BASE, by_arch, trial

from fcnlab.comparison import compare
from fcnlab.comparison.texts import counted, left_out
from fcnlab.comparison.trials import Trial


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
    """In a search, no two rates are the same, so that the decay, the width and the architecture follow from them."""
    trials = [
        trial(
            0.5,
            **{"optimizer__lr": lr, "optimizer__weight_decay": decay, "arch__name": arch, "arch__width": 0.5},
            tags={"hydra.overrides": f"arch={arch} optimizer.lr={lr} optimizer.weight_decay={decay} arch.width=0.5"},
        )
        for lr, decay, arch in ((0.1, 0.01, "fcn8s"), (0.2, 0.02, "fcn16s"), (0.3, 0.01, "fcn8s"))
    ]
    assert compare(trials).axes == ["arch.name", "optimizer.lr", "optimizer.weight_decay"]
    cut = trial(0.5, optimizer__lr=0.4, tags={"hydra.overrides": "optimizer.lr=0.4 'tracking.run_name=cut"})
    assert compare([*trials, cut]).axes == ["arch.name", "arch.width", "optimizer.lr", "optimizer.weight_decay"]


def test_a_key_that_a_training_was_recorded_without_had_its_default():
    """The encoder, once it is a key, does not set earlier trainings apart."""
    old, same = trial(0.5, seed=1), trial(0.6, seed=2, arch__encoder="vgg16")
    (group,) = compare([old, same]).groups
    assert [found.seed for found in group.trials] == ["1", "2"]
    other = trial(0.7, seed=1, arch__encoder="resnet18")
    found = compare([old, same, other])
    assert (found.axes, [group.label for group in found.groups]) == (
        ["arch.encoder"], ["arch.encoder=vgg16", "arch.encoder=resnet18"])  # fmt: skip
    elsewhere = [trial(0.5, arch__name="stack", arch__depth=2), trial(0.5, arch__encoder="vgg16")]
    assert "arch.encoder" not in compare(elsewhere).axes


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


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"val/loss": math.nan}, "its val/loss is not a number"),
        ({"val/loss": math.inf}, "its val/loss is infinite"),
        ({"val/loss": -math.inf}, "its val/loss is infinite"),
        ({"val/mean_iou": 0.5}, "it has no val/loss"),
    ],
)
def test_a_finished_training_without_a_number_does_not_count(metrics, said):
    given = {1: {"val/loss": 0.5}, 2: {"val/loss": 0.25}, 3: metrics}
    found = compare(
        [Trial(f"{n}", f"{n}", "FINISHED", {**BASE, "seed": str(n)}, values) for n, values in given.items()], "val/loss"
    )
    (group,) = found.groups
    assert counted(group) == "2 of 3"
    assert (group.mean("val/loss"), group.values("val/loss")) == (0.375, [0.5, 0.25])
    assert left_out(found) == [f"3 (3): {said}"]
    assert found.best_trial.run_id == "2"
    assert "1 of 3 trainings are left out" in found.warnings[0]
    assert found.differences[group.label].pairs == 2


def test_weights_that_are_computed_for_each_fold_do_not_set_the_folds_apart():
    """Those that somebody chose do, and so do those of one split."""
    tags = {"fcnlab.class_weights": "median_frequency"}

    def axes(**more):
        folds = [trial(0.5 + fold / 10, dataset__fold=fold, loss__class_weights=[fold, 1], **more) for fold in range(3)]
        return compare(folds).axes

    assert "loss.class_weights" not in axes(tags=tags)
    assert "loss.class_weights" not in axes(tags={"hydra.overrides": "loss.class_weights=median_frequency"})
    given = {"hydra.overrides": "loss.class_weights=[1,2]"}
    assert "loss.class_weights" in axes(tags=given)
    same = [trial(0.5, dataset__fold="None", loss__class_weights=[weight, 1], tags=tags | given) for weight in (1, 2)]
    assert "loss.class_weights" in compare(same).axes
