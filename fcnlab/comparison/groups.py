"""From trainings to groups that differ in what was varied, with seeds as repetitions."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from fcnlab import config as configuration
from fcnlab.comparison.significance import Difference, adjusted, paired_difference
from fcnlab.comparison.trials import Trial, parse
from fcnlab.config.roles import Role
from fcnlab.core.errors import ConfigError
from fcnlab.metrics.names import higher_is_better

IOU = "val/iou/"


@dataclass(frozen=True)
class Group:
    """Trainings that differ in their seed alone.

    Attributes:
        settings: Each axis of the comparison, with this group's value.
        trials: Those that ran to their end and have a finite value of the compared metric, by seed.
        missing: Those that were pruned, failed or were killed, or still run, and those without such a value.
        exact: Whether the labels show every digit, since another group's label would be the same otherwise.
    """

    settings: Mapping[str, Any]
    trials: Sequence[Trial]
    missing: Sequence[Trial] = ()
    exact: bool = False

    @property
    def label(self) -> str:
        """Such as ``fcn8s, optimizer.lr=0.001``."""
        return ", ".join(_said(key, value, None if self.exact else 6) for key, value in self.settings.items())

    @property
    def short_label(self) -> str:
        """The same for a picture: ``fcn8s, lr=0.001``."""
        return ", ".join(
            _said(key.rpartition(".")[2] if not key.endswith(".name") else key, value, None if self.exact else 4)
            for key, value in self.settings.items()
        )

    def values(self, metric: str) -> list[float]:
        """Of a metric, one for each training that has a finite one."""
        found = [trial.metrics.get(metric, math.nan) for trial in self.trials]
        return [value for value in found if math.isfinite(value)]

    def mean(self, metric: str) -> float:
        """Of a metric over the trainings; NaN if none has it."""
        return _mean(self.values(metric))

    def spread(self, metric: str) -> float:
        """Standard deviation of a metric over the trainings (n - 1); NaN below two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else math.nan

    @property
    def seconds(self) -> float:
        """Mean time of a training."""
        return _mean([trial.seconds for trial in self.trials if not math.isnan(trial.seconds)])

    @property
    def images_per_second(self) -> float:
        """Mean of the trainings' medians."""
        return _mean([trial.images_per_second for trial in self.trials if not math.isnan(trial.images_per_second)])

    @property
    def parameters(self) -> int | None:
        """Of the network, if the runs say it."""
        return next((trial.parameters for trial in self.trials if trial.parameters is not None), None)


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        monitor: The metric that is compared.
        axes: The keys that vary, apart from the seed and from keys of the role MACHINE.
        groups: In the natural order of their settings.
        best: The group that no other one beats over the seeds that both have or, where they have none in common, by
            the mean over all; of several such groups the one with the best mean. None if there is none, since
            different seeds let each be beaten by another one, or if nothing was evaluated.
        best_trial: The training with the best value, whichever group it is of; None if nothing was evaluated.
        reference: What the others are compared with: the baseline, or else the best, or else the group with the best
            mean.
        differences: Of each group's metric from the reference's, by the group's label. The reference's own is 0, with
            its seeds as pairs.
        warnings: What makes the comparison less than fair, a sentence each.
    """

    monitor: str
    axes: Sequence[str]
    groups: Sequence[Group]
    best: Group | None
    best_trial: Trial | None
    reference: Group | None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def class_names(self) -> list[str]:
        """Of the classes whose IoU any training has."""
        names: dict[str, None] = {}
        for group in self.groups:
            for trial in group.trials:
                names |= {name.removeprefix(IOU): None for name in trial.metrics if name.startswith(IOU)}
        return sorted(names)


def compare(trials: Sequence[Trial], monitor: str = "val/mean_iou", baseline: str | None = None) -> Comparison:
    """Compare trainings; their order does not matter.

    Args:
        trials: Of any number of configurations and seeds.
        monitor: The metric to compare by.
        baseline: Label or settings of the group to compare the others with, such as ``fcn32s`` or
            ``optimizer=adam,optimizer.lr=0.001``; None: the best group.

    Raises:
        ConfigError: If no or several groups fit the baseline.
    """
    trials = sorted(trials, key=lambda trial: (_seed(trial), trial.run_id, trial.name))
    axes = _axes(trials)
    by_settings: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        by_settings.setdefault(tuple(trial.params.get(axis, "") for axis in axes), []).append(trial)
    groups = [
        Group(
            {axis: parse(value) for axis, value in zip(axes, settings, strict=True)},
            [trial for trial in members if why_left_out(trial, monitor) is None],
            [trial for trial in members if why_left_out(trial, monitor) is not None],
        )
        for settings, members in by_settings.items()
    ]
    groups.sort(key=lambda group: [_natural(axis, value) for axis, value in group.settings.items()])
    shared = Counter(group.label for group in groups)
    groups = [replace(group, exact=shared[group.label] > 1) for group in groups]
    higher = higher_is_better(monitor)
    measured = [group for group in groups if group.trials]
    measured.sort(key=lambda group: group.mean(monitor), reverse=higher)
    best = _unbeaten(measured, monitor)
    pick: Callable[..., Any] = max if higher else min
    candidates = [trial for group in groups for trial in group.trials]
    best_trial = pick(candidates, key=lambda trial: trial.metrics[monitor], default=None)
    found = _find(groups, baseline) if baseline is not None else None
    reference = found or best or next(iter(measured), None)
    warnings = _warnings(trials, groups, best)
    differences = _differences(groups, reference, monitor) if reference is not None else {}
    return Comparison(monitor, axes, groups, best, best_trial, reference, differences, warnings)


def why_left_out(trial: Trial, monitor: str) -> str | None:
    """Why a training is no result for a metric, in a few words; None if it is one.

    An infinite value is no number here either: it would make every mean and difference that it enters infinite.
    """
    if not trial.complete:
        return trial.reason or ("given up" if trial.pruned else trial.status.lower())
    value = trial.metrics.get(monitor)
    if value is None:
        return f"it has no {monitor}"
    if math.isfinite(value):
        return None
    return f"its {monitor} is {'not a number' if math.isnan(value) else 'infinite'}"


def _unbeaten(ranked: Sequence[Group], monitor: str) -> Group | None:
    """The first group that no other one beats.

    Args:
        ranked: Groups with values, those with the best means first.
        monitor: The metric.
    """
    values = [_by_seed(group, monitor) for group in ranked]
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


def _differences(groups: Sequence[Group], reference: Group, monitor: str) -> dict[str, Difference]:
    """Of every group with values from the reference, which is no comparison that Holm's correction counts."""
    base = _by_seed(reference, monitor)
    others = [group for group in groups if group.trials and group is not reference]
    found = adjusted([paired_difference(_by_seed(group, monitor), base) for group in others])
    own = Difference(len(base), 0.0 if base else math.nan)
    return {reference.label: own, **dict(zip((group.label for group in others), found, strict=True))}


def _said(key: str, value: Any, digits: int | None) -> str:
    if key.endswith(".name"):
        return str(value)
    return f"{key}={value:.{digits}g}" if isinstance(value, float) and digits else f"{key}={value}"


def _axes(trials: Sequence[Trial]) -> list[str]:
    """The keys that were varied, names first, and what else it takes to tell the configurations apart.

    A key that nobody set and that follows from others, as the stride does from the architecture, is none. One that was
    set is one even so: in a search, no two learning rates are the same, and the other keys would all follow.
    """
    keys = {key: None for trial in trials for key in trial.params}
    of_the_machine = _keys_of_the_machine(trials)
    keys = [key for key in keys if key != "seed" and key not in of_the_machine]
    keys.sort(key=lambda key: (not key.endswith(".name"), key))
    given = {key for trial in trials for key in trial.given}
    axes = [key for key in keys if key in given and len(_settings(trials, [key])) > 1]
    parts = len(_settings(trials, axes))
    for key in keys:
        settings = _settings(trials, [*axes, key])
        if len(settings) > parts:
            axes.append(key)
            parts = len(settings)
    return sorted(axes, key=keys.index)


def _keys_of_the_machine(trials: Sequence[Trial]) -> set[str]:
    """The keys that belong to the machine rather than the experiment, in every training that has them."""
    keys: set[str] = set()
    others: set[str] = set()
    for trial in trials:
        roles = configuration.recorded_roles(trial.params)
        found = {key for key in trial.params if Role.MACHINE in roles.get(key, Role.FREE)}
        keys |= found
        others |= trial.params.keys() - found
    return keys - others


def _settings(trials: Sequence[Trial], axes: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(trial.params.get(axis, "") for axis in axes) for trial in trials}


def _natural(axis: str, value: Any) -> tuple[int, float, str]:
    """A sorting key: numbers by size, texts by their numbers; architectures from the coarsest stride on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        number = re.search(r"\d+", str(value))
        sign = -1 if axis == "arch.name" else 1
        return 1, sign * float(number[0]) if number else math.inf, str(value)
    return 0, float(value), ""


def _seed(trial: Trial) -> tuple[int, str]:
    return (int(trial.seed), "") if trial.seed.isdecimal() else (0, trial.seed)


def _by_seed(group: Group, monitor: str) -> dict[str, float]:
    """The value of each seed; of one that was trained several times, their mean."""
    values: dict[str, list[float]] = {}
    for trial in group.trials:
        values.setdefault(trial.seed, []).append(trial.metrics[monitor])
    return {seed: _mean(found) for seed, found in values.items()}


def _find(groups: Sequence[Group], baseline: str) -> Group:
    wanted = {}
    for part in baseline.split(","):
        key, _, value = part.strip().partition("=")
        wanted[key if "." in key or key == "seed" else f"{key}.name"] = parse(value)
    found = [group for group in groups if group.label == baseline or wanted.items() <= dict(group.settings).items()]
    if len(found) == 1:
        return found[0]
    known = "; ".join(",".join(f"{key}={value}" for key, value in group.settings.items()) for group in groups)
    raise ConfigError(f"baseline={baseline}: fits {len(found)} groups instead of one; there are: {known}")


def _warnings(trials: Sequence[Trial], groups: Sequence[Group], best: Group | None) -> list[str]:
    warnings = []
    measured = [trial for group in groups for trial in group.trials]
    digests = {trial.validation_digest for trial in measured if trial.validation_digest}
    if len(digests) > 1:
        warnings.append(f"measured on {len(digests)} different sets of validation images: not comparable")
    missing = sum(len(group.missing) for group in groups)
    if missing:
        warnings.append(
            f"{missing} of {len(trials)} trainings are left out: failed, killed, given up, still running, or without "
            "a finite value"
        )
    warnings += _about_seeds([group for group in groups if group.trials], best)
    for tag, what in (("git.commit", "commits"), ("cpu", "processors"), ("kernels", "sets of operators")):
        found = {trial.tags[tag] for trial in measured if tag in trial.tags}
        if len(found) > 1:
            warnings.append(f"made with {len(found)} different {what}")
    return warnings


def _about_seeds(groups: Sequence[Group], best: Group | None) -> list[str]:
    """What is to be known of means, differences and the best group where not every group has each seed once."""
    warnings = []
    seeds = [{trial.seed for trial in group.trials} for group in groups]
    if len(set(map(frozenset, seeds))) > 1:
        warnings.append("the groups have different seeds: means are over all, differences over the common ones")
        if best is None:
            warnings.append(
                "no group is the best: since the seeds differ, each is beaten by another one over the seeds that both "
                "have; train every group with the same seeds"
            )
        else:
            warnings.append("the best group is one that no other beats over common seeds, whatever its mean")
        if any(one.isdisjoint(other) for one, other in combinations(seeds, 2)):
            warnings.append("groups without a common seed are ranked by their means over all")
    if any(len(found) < len(group.trials) for found, group in zip(seeds, groups, strict=True)):
        warnings.append("a seed was trained several times: means are over all, differences over the means of each seed")
    return warnings


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan
