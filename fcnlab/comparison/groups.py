"""Groups trainings by what was varied, with seeds as repetitions."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fcnlab import config as configuration
from fcnlab.comparison.trials import FOLD, Trial, parse
from fcnlab.config.roles import Role


@dataclass(frozen=True)
class Group:
    """Trainings that differ in nothing but their seed and the fold that they are validated on.

    Attributes:
        settings: The group's value on each axis of the comparison.
        trials: The trainings that ran to their end and have a finite value of the compared metric, by seed.
        missing: The other trainings: pruned, failed, killed, still running, or without such a value.
        exact: Whether the labels show every digit, since another group would have the same label otherwise.
    """

    settings: Mapping[str, Any]
    trials: Sequence[Trial]
    missing: Sequence[Trial] = ()
    exact: bool = False

    @property
    def label(self) -> str:
        """The settings in one line, such as ``fcn8s, optimizer.lr=0.001``."""
        return ", ".join(_setting(key, value, None if self.exact else 6) for key, value in self.settings.items())

    @property
    def short_label(self) -> str:
        """A shorter label for a picture: ``fcn8s, lr=0.001``."""
        return ", ".join(
            _setting(key if key.endswith(".name") else key.rpartition(".")[2], value, None if self.exact else 4)
            for key, value in self.settings.items()
        )

    def values(self, metric: str) -> list[float]:
        """Return the finite values of a metric, one for each training that has one."""
        found = [trial.metrics.get(metric, math.nan) for trial in self.trials]
        return [value for value in found if math.isfinite(value)]

    def by_seed(self, metric: str) -> dict[str, float]:
        """Return the compared metric of each seed, and fold; of one that was trained several times, the mean."""
        values: dict[str, list[float]] = {}
        for trial in self.trials:
            values.setdefault(trial.pair, []).append(trial.metrics[metric])
        return {seed: _mean(found) for seed, found in values.items()}

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the trainings; NaN if none has it."""
        return _mean(self.values(metric))

    def spread(self, metric: str) -> float:
        """Return the standard deviation of a metric over the trainings (n - 1); NaN below two values."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else math.nan

    @property
    def seconds(self) -> float:
        """The mean time of a training; NaN if none is known."""
        return _mean([trial.seconds for trial in self.trials if not math.isnan(trial.seconds)])

    @property
    def images_per_second(self) -> float:
        """The mean of the trainings' medians; NaN if none is known."""
        return _mean([trial.images_per_second for trial in self.trials if not math.isnan(trial.images_per_second)])

    @property
    def parameters(self) -> int | None:
        """The number of the network's parameters; None if no run says it."""
        return next((trial.parameters for trial in self.trials if trial.parameters is not None), None)


def group_trials(trials: Sequence[Trial], monitor: str) -> tuple[list[str], list[Group]]:
    """Group trainings by their settings.

    Args:
        trials: Trainings in the order that they are to have within a group.
        monitor: The metric that is compared.

    Returns:
        The axes, which are the keys that vary apart from the seed, the fold and keys of the role MACHINE, and the
        groups in the natural order of their settings.
    """
    axes = _axes(trials)
    by_settings: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        by_settings.setdefault(tuple(trial.setting(axis) for axis in axes), []).append(trial)
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
    return axes, [replace(group, exact=shared[group.label] > 1) for group in groups]


def why_left_out(trial: Trial, monitor: str) -> str | None:
    """Say in a few words why a training does not count for a metric; None if it counts.

    An infinite value does not count either, since it would make every mean and difference infinite.
    """
    if not trial.complete:
        return trial.reason or ("pruned" if trial.pruned else trial.status.lower())
    value = trial.metrics.get(monitor)
    if value is None:
        return f"it has no {monitor}"
    if math.isfinite(value):
        return None
    return f"its {monitor} is {'not a number' if math.isnan(value) else 'infinite'}"


def _setting(key: str, value: Any, digits: int | None) -> str:
    if key.endswith(".name"):
        return str(value)
    return f"{key}={value:.{digits}g}" if isinstance(value, float) and digits else f"{key}={value}"


def _axes(trials: Sequence[Trial]) -> list[str]:
    """Return the keys that were varied, names first, and what else it takes to tell the configurations apart.

    A key that nobody set and that follows from others, as the stride follows from the architecture, is no axis. A key
    that was set is one even so: in a search, no two learning rates are the same, and the other keys would all follow.
    """
    of_the_machine = _keys_of_the_machine(trials)
    keys = {key for trial in trials for key in trial.params} - of_the_machine - {"seed", FOLD}
    ordered = sorted(keys, key=lambda key: (not key.endswith(".name"), key))
    given = {key for trial in trials for key in trial.given}
    axes = [key for key in ordered if key in given and len(_settings(trials, [key])) > 1]
    parts = len(_settings(trials, axes))
    for key in ordered:
        settings = _settings(trials, [*axes, key])
        if len(settings) > parts:
            axes.append(key)
            parts = len(settings)
    return sorted(axes, key=ordered.index)


def _keys_of_the_machine(trials: Sequence[Trial]) -> set[str]:
    """Return the keys that belong to the machine rather than the experiment, in every training that has them."""
    keys: set[str] = set()
    others: set[str] = set()
    for trial in trials:
        roles = configuration.recorded_roles(trial.params)
        found = {key for key in trial.params if Role.MACHINE in roles.get(key, Role.FREE)}
        keys |= found
        others |= trial.params.keys() - found
    return keys - others


def _settings(trials: Sequence[Trial], axes: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(trial.setting(axis) for axis in axes) for trial in trials}


def _natural(axis: str, value: Any) -> tuple[int, float, str]:
    """Return a sorting key: numbers by size, texts by their numbers, architectures from the coarsest stride on."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        number = re.search(r"\d+", str(value))
        sign = -1 if axis == "arch.name" else 1
        return 1, sign * float(number[0]) if number else math.inf, str(value)
    return 0, float(value), ""


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan
