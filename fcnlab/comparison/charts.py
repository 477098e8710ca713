"""Draws the charts of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnlab.comparison.comparison import Comparison
from fcnlab.comparison.groups import Group
from fcnlab.comparison.trials import Trial
from fcnlab.drawing.figures import plain, save
from fcnlab.metrics.names import IOU, higher_is_better
from fcnlab.recording.tags import TRIAL_TAG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 120
_TICK_GAP = 0.04
"""The part of an axis' height that keeps two labels from overlapping."""


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw the charts of a comparison that would not be empty into a folder.

    Returns:
        The files: ``comparison.png``, ``classes.png``, with two axes or more ``parallel_coordinates.png``, with the
        trials of a sweep ``history.png``, and ``learning_curve.png`` where the share of the training images varies.
    """
    if not comparison.measured:
        return []
    drawn = [_draw_groups(comparison, folder / "comparison.png")]
    if comparison.curves:
        drawn.append(_draw_curves(comparison, folder / "learning_curve.png"))
    if comparison.class_names:
        drawn.append(_draw_classes(comparison, folder / "classes.png"))
    if len(comparison.axes) > 1:
        drawn.append(_draw_coordinates(comparison, folder / "parallel_coordinates.png"))
    numbered = [
        trial
        for trial in comparison.trials
        if trial.tags.get(TRIAL_TAG, "").isdecimal()
        and (trial.complete or trial.pruned)
        and math.isfinite(trial.metrics.get(comparison.monitor, math.nan))
    ]
    if len(numbered) > 2:
        drawn.append(_draw_history(comparison, numbered, folder / "history.png"))
    return drawn


def _draw_groups(comparison: Comparison, path: Path) -> Path:
    """Draw each training as a dot, and each group's mean with its standard deviation."""
    from matplotlib.figure import Figure

    groups = comparison.measured
    labels, metric = [_label(group) for group in groups], comparison.monitor.removeprefix("val/")
    many = len(groups) > 8 or max(map(len, labels)) > 14  # each group in a row of its own
    size = (8.0, max(2.6, 0.32 * len(groups) + 1.4)) if many else (max(5.4, 1.1 * len(groups) + 1.5), 4.2)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(groups))
    for place, group in zip(places, groups, strict=True):
        values = group.values(comparison.monitor)
        shifted = place + np.linspace(-0.08, 0.08, len(values)) if len(values) > 1 else np.array([float(place)])
        dots = (values, shifted) if many else (shifted, values)
        axes.plot(*dots, "o", color="0.65", markersize=4, zorder=1)
        spread = group.spread(comparison.monitor)
        error = None if math.isnan(spread) else spread
        mean = group.mean(comparison.monitor)
        colour = "C1" if group is comparison.best else "C0"
        if many:
            axes.errorbar(mean, place, xerr=error, fmt="D", color=colour, capsize=4, markersize=5, zorder=2)
        else:
            axes.errorbar(place, mean, yerr=error, fmt="D", color=colour, capsize=4, markersize=6, zorder=2)
    if many:
        axes.set_yticks(places, labels, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel=plain(metric))
    else:
        axes.set_xticks(places, labels)
        axes.set(ylabel=plain(metric), xlim=(-0.6, len(groups) - 0.4))
    _finish(axes, "mean ± standard deviation over seeds, and each training")
    save(figure, path)
    return path


def _draw_curves(comparison: Comparison, path: Path) -> Path:
    """Draw the metric of each training over its number of training images, with the law, dashed where it is ahead."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(6.4, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for index, curve in enumerate(comparison.curves):
        colour = f"C{index % 10}"
        sizes = np.array([point.images for point in curve.points])
        scores = [point.score for point in curve.points]
        axes.plot(sizes, scores, "o", color=colour, markersize=4, label=plain(curve.label) if curve.label else None)
        if curve.law is None:
            continue
        for places, style in (
            (np.geomspace(sizes.min(), sizes.max(), 60), "-"),
            (np.geomspace(sizes.max(), 2 * sizes.max(), 20), "--"),
        ):
            found = [curve.law.at(float(place)) for place in places]
            axes.plot(places, [estimate.value for estimate in found], style, color=colour)
            ends = [estimate.low for estimate in found], [estimate.high for estimate in found]
            axes.fill_between(places, *ends, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(sorted({point.images for curve in comparison.curves for point in curve.points}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="training images", ylabel=plain(comparison.monitor.removeprefix("val/")))
    if any(curve.label for curve in comparison.curves):
        axes.legend(frameon=False, fontsize=9)
    _finish(axes, "each training, and the power law with its 95 % interval")
    save(figure, path)
    return path


def _draw_classes(comparison: Comparison, path: Path) -> Path:
    """Draw the IoU of each class by group."""
    from matplotlib.figure import Figure

    groups = comparison.measured
    names = comparison.class_names
    figure = Figure(figsize=(max(5.0, 0.7 * len(names) + 2.5), 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    width = 0.7 / max(len(groups), 1)
    for index, group in enumerate(groups):
        places = np.arange(len(names)) + (index - (len(groups) - 1) / 2) * width
        means = [group.mean(f"{IOU}{name}") for name in names]
        spreads = np.nan_to_num([group.spread(f"{IOU}{name}") for name in names])
        label = _label(group) if len(groups) <= 10 else None
        look = {"fmt": "o", "capsize": 2, "markersize": 4, "color": f"C{index % 10}"}
        axes.errorbar(places, means, yerr=spreads, label=label, **look)
    slanted = len(names) > 6
    ticks = [plain(name) for name in names]
    axes.set_xticks(range(len(names)), ticks, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    axes.set(ylabel="IoU", ylim=(-0.03, 1.03), xlim=(-0.6, len(names) - 0.4))
    _finish(axes, "IoU of each class, mean ± standard deviation over seeds")
    if len(groups) <= 10:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)
    return path


def _draw_coordinates(comparison: Comparison, path: Path) -> Path:
    """Draw a line for each training through its settings, coloured by the metric."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    points = [
        (group.settings, trial.metrics[comparison.monitor]) for group in comparison.groups for trial in group.trials
    ]
    values = [value for _, value in points]
    scale = Normalize(min(values), max(values) if max(values) > min(values) else min(values) + 1e-6)
    colours = colormaps["viridis"]
    figure = Figure(figsize=(2.2 * (len(comparison.axes) + 1) + 1.5, 4.4), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    scales = [_Scale([settings[axis] for settings, _ in points]) for axis in comparison.axes]
    metric = _Scale(values)
    better_last = higher_is_better(comparison.monitor)
    for settings, value in sorted(points, key=lambda point: point[1], reverse=not better_last):
        heights = [scale_of(settings[axis]) for axis, scale_of in zip(comparison.axes, scales, strict=True)]
        axes.plot([*heights, metric(value)], color=colours(scale(value)), linewidth=1.4, alpha=0.85)
    for place, scale_of in enumerate([*scales, metric]):
        axes.axvline(place, color="0.3", linewidth=0.8)
        for height, label in scale_of.ticks():
            clear = {
                "facecolor": "white",
                "edgecolor": "none",
                "alpha": 0.75,
                "pad": 0.8,
            }  # lines shine through
            axes.text(place + 0.02, height, plain(label), fontsize=8, va="center", color="0.2", bbox=clear)
    names = [*comparison.axes, comparison.monitor.removeprefix("val/")]
    axes.set_xticks(range(len(names)), [plain(name) for name in names])
    axes.set(yticks=[], ylim=(-0.05, 1.05), xlim=(-0.1, len(names) - 0.6))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(ScalarMappable(scale, colours), ax=axes, label=plain(names[-1]))
    save(figure, path)
    return path


class _Scale:
    """Maps the values of an axis to heights between 0 and 1: numbers by size or, over a wide range, by logarithm."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if self.numeric:
            low, high = min(values), max(values)
            self.logarithmic = low > 0 and high / low >= 30
            self.low, self.high = self._transform(low), self._transform(high)
            self.values = sorted(set(values))
        else:
            self.values = list(dict.fromkeys(map(str, values)))

    def _transform(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else float(value)

    def __call__(self, value: Any) -> float:
        if not self.numeric:
            return self.values.index(str(value)) / max(len(self.values) - 1, 1)
        return (self._transform(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Return heights with their labels, few enough to be read."""
        if not self.numeric:
            return [(self(value), value) for value in self.values]
        shown = self.values if len(self.values) <= 6 else [self.values[0], self.values[-1]]
        ticks = [(self(value), f"{value:.4g}") for value in shown]
        top = ticks[-1][0]
        kept = ticks[:1]
        for height, label in ticks[1:]:
            if height - kept[-1][0] >= _TICK_GAP and (height == top or top - height >= _TICK_GAP):
                kept.append((height, label))
        return kept


def _draw_history(comparison: Comparison, trials: Sequence[Trial], path: Path) -> Path:
    """Draw the value of each trial over its number, and the best value so far."""
    from matplotlib.figure import Figure

    points = [(int(trial.tags[TRIAL_TAG]), trial) for trial in trials]
    points.sort(key=lambda point: point[0])
    numbers = [number for number, _ in points]
    values = np.array([trial.metrics[comparison.monitor] for _, trial in points])
    pruned = np.array([trial.pruned for _, trial in points])
    better = np.fmax if higher_is_better(comparison.monitor) else np.fmin  # they prefer a number to NaN
    best = better.accumulate(np.where(pruned, math.nan, values))
    figure = Figure(figsize=(7, 4), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.step(numbers, best, where="post", color="C1", label="best so far")
    kept = ~pruned
    axes.plot(np.array(numbers)[kept], values[kept], "o", color="C0", markersize=4, label="trial")
    if pruned.any():
        axes.plot(np.array(numbers)[pruned], values[pruned], "x", color="0.5", markersize=5, label="pruned")
    axes.set(xlabel="trial", ylabel=plain(comparison.monitor.removeprefix("val/")))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9)
    if values.min() > 0 and values.max() > 20 * np.median(values):  # a diverged trial would flatten everything else
        axes.set_yscale("log")
    _finish(axes, "")
    save(figure, path)
    return path


def _label(group: Group) -> str:
    return group.short_label.replace("$", r"\$") or "all"


def _finish(axes: Axes, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    if title:
        axes.set_title(title, fontsize=9, color="0.35", loc="left")
