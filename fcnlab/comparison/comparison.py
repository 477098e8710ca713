"""Compares trainings: which group is the best, and how the others differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fcnlab.comparison.caveats import caveats
from fcnlab.comparison.conclusion import conclusion
from fcnlab.comparison.drawings import draw_images, unit
from fcnlab.comparison.groups import Group, group_trials
from fcnlab.comparison.learning_curve import LearningCurve, learning_curves
from fcnlab.comparison.significance import Difference, Drawn, adjusted, paired_difference
from fcnlab.comparison.trials import Trial, parse
from fcnlab.comparison.verdict import Verdict, judge
from fcnlab.core.errors import ConfigError
from fcnlab.metrics.names import IOU, higher_is_better


@dataclass(frozen=True)
class Comparison:
    """The result of comparing groups of trainings.

    Attributes:
        monitor: The metric that is compared.
        axes: The keys that vary, apart from the seed and from keys of the role MACHINE.
        groups: The groups in the natural order of their settings.
        best: The group that no other one beats over the seeds that both have or, where they have none in common, by
            the mean over all; of several such groups the one with the best mean. None if there is none, since
            different seeds let each be beaten by another one, or if nothing was evaluated.
        best_trial: The training with the best value, whichever group it belongs to; None if nothing was evaluated.
        reference: The group that the others are compared with: the baseline, or else the best group, or else the group
            with the best mean.
        differences: The difference of each group's metric from the reference's, by the group's label. The reference's
            own is 0, with its seeds as pairs.
        warnings: What makes the comparison less than fair, in a sentence each.
        verdicts: What the difference of each group from the reference means, by the group's label.
        margin: The largest difference that does not matter; None if every difference does.
        comparisons: The number of comparisons that p-values are corrected for: one for each group with a baseline, and
            one for each pair of groups without, since the reference is then chosen by the same numbers.
        has_baseline: Whether the reference was given.
        unit: What was drawn: ``images`` or ``groups of images``.
        why_no_images: Why no interval covers the chance of the images, as a sentence; None if they do, or need not.
        curves: The metric over the number of training images, where ``dataset.train_share`` varies.
    """

    monitor: str
    axes: Sequence[str]
    groups: Sequence[Group]
    best: Group | None
    best_trial: Trial | None
    reference: Group | None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    margin: float | None = None
    comparisons: int = 1
    has_baseline: bool = False
    unit: str = "images"
    why_no_images: str | None = None
    curves: Sequence[LearningCurve] = ()

    @property
    def conclusion(self) -> str:
        """One sentence for all: who wins, by how much, and how sure that is."""
        return conclusion(self)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes whose IoU any training has, sorted."""
        metrics = {name for group in self.groups for trial in group.trials for name in trial.metrics}
        return sorted(name.removeprefix(IOU) for name in metrics if name.startswith(IOU))

    @property
    def measured(self) -> list[Group]:
        """The groups that have a value."""
        return [group for group in self.groups if group.trials]

    @property
    def trials(self) -> list[Trial]:
        """All trainings, also those that do not count."""
        return [trial for group in self.groups for trial in (*group.trials, *group.missing)]


def compare(
    trials: Sequence[Trial],
    monitor: str = "val/mean_iou",
    baseline: str | None = None,
    margin: float | None = None,
) -> Comparison:
    """Compare trainings; their order does not matter.

    Args:
        trials: Trainings of any number of configurations and seeds.
        monitor: The metric to compare by.
        baseline: The label or the settings of the group to compare the others with, such as ``fcn32s`` or
            ``optimizer=adam,optimizer.lr=0.001``; None: the best group.
        margin: The largest difference that does not matter; None if every difference does.

    Raises:
        ConfigError: If no or several groups fit the baseline.
    """
    trials = sorted(trials, key=lambda trial: (_seed(trial), trial.run_id, trial.name))
    axes, groups = group_trials(trials, monitor)
    higher = higher_is_better(monitor)
    measured = [group for group in groups if group.trials]
    measured.sort(key=lambda group: group.mean(monitor), reverse=higher)
    best = _unbeaten(measured, monitor)
    pick: Callable[..., Any] = max if higher else min
    candidates = [trial for group in groups for trial in group.trials]
    best_trial = pick(candidates, key=lambda trial: trial.metrics[monitor], default=None)
    chosen = _find(groups, baseline) if baseline is not None else None
    reference = chosen or best or next(iter(measured), None)
    drawn, why_none = draw_images(measured, monitor)
    others = sum(group is not reference for group in measured)
    comparisons = max(others if chosen is not None else others * (others + 1) // 2, 1)
    differences = _differences(groups, reference, monitor, drawn, margin, comparisons) if reference is not None else {}
    return Comparison(
        monitor,
        axes,
        groups,
        best,
        best_trial,
        reference,
        differences,
        caveats(groups, best, monitor),
        {label: judge(difference, higher, margin, comparisons) for label, difference in differences.items()},
        margin,
        comparisons,
        chosen is not None,
        unit(measured),
        why_none,
        learning_curves(groups, axes, monitor, drawn),
    )


def _unbeaten(ranked: Sequence[Group], monitor: str) -> Group | None:
    """Return the first group that no other one beats.

    Args:
        ranked: Groups with values, those with the best means first.
        monitor: The metric.
    """
    values = [group.by_seed(monitor) for group in ranked]
    sign = 1 if higher_is_better(monitor) else -1

    def beats(one: int, other: int) -> bool:
        common = values[one].keys() & values[other].keys()
        if common:  # the mean that the table shows, so that its sign is the same
            return sign * statistics.fmean(values[one][seed] - values[other][seed] for seed in common) > 0
        return sign * (ranked[one].mean(monitor) - ranked[other].mean(monitor)) > 0

    for place, group in enumerate(ranked):
        if not any(beats(other, place) for other in range(len(ranked)) if other != place):
            return group
    return None


def _differences(
    groups: Sequence[Group],
    reference: Group,
    monitor: str,
    drawn: Mapping[str, Drawn],
    margin: float | None,
    comparisons: int,
) -> dict[str, Difference]:
    """Return the difference of every group with values; Holm's correction does not count the reference."""
    base = reference.by_seed(monitor)
    others = [group for group in groups if group.trials and group is not reference]
    overlap = _overlap(groups)
    found = [
        paired_difference(
            *(group.by_seed(monitor), base, drawn.get(group.label), drawn.get(reference.label)),
            margin=margin,
            overlap=overlap,
        )
        for group in others
    ]
    differences = adjusted(found, comparisons)
    own = Difference(len(base), 0.0 if base else math.nan)
    return {reference.label: own, **dict(zip((group.label for group in others), differences, strict=True))}


def _overlap(groups: Sequence[Group]) -> float | None:
    """Return the number of validation images for each training image if trainings differ in their fold; else None."""
    trials = [trial for group in groups for trial in group.trials]
    if len({trial.fold for trial in trials}) < 2:
        return None
    counts = [int(text) for trial in trials if (text := trial.params.get("dataset.folds", "")).isdecimal()]
    folds = max([*counts, len({trial.fold for trial in trials})])
    return 1 / (folds - 1)


def _seed(trial: Trial) -> tuple[int, str]:
    return (int(trial.seed), "") if trial.seed.isdecimal() else (0, trial.seed)


def _find(groups: Sequence[Group], baseline: str) -> Group:
    wanted = {}
    for part in baseline.split(","):
        key, _, value = part.strip().partition("=")
        wanted[key if "." in key or key == "seed" else f"{key}.name"] = parse(value)
    fitting = [group for group in groups if group.label == baseline or wanted.items() <= dict(group.settings).items()]
    if len(fitting) == 1:
        return fitting[0]
    if len(groups) == 1:
        raise ConfigError(
            f"baseline={baseline}: there is only one group, as the trainings differ in their seed and fold alone, so "
            "that there is nothing to compare it with; leave baseline out, or choose more trainings"
        )
    known = "; ".join(",".join(f"{key}={value}" for key, value in group.settings.items()) for group in groups)
    raise ConfigError(f"baseline={baseline}: fits {len(fitting)} groups instead of one; there are: {known}")
