"""Draws the learning curves of a run: losses, metrics, each class's IoU and the learning rate over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnlab.drawing.figures import DPI, plain, save
from fcnlab.metrics.names import IOU, SUMMARY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = Sequence[tuple[int, float]]
"""The history of a metric: (step, value) pairs."""

Curve = tuple[np.ndarray, np.ndarray]
"""The steps in order, int64, and the values, float64, with NaN in place of those that are not finite."""

_TICKS = 5  # intervals of an axis at most, since each tick takes 5 of a figure's 400 ms
_MANY_POINTS = 60  # with so many points, noise hides the trend
_MANY_CLASSES = 10  # more classes would need more colours than one can tell apart
_LOWEST = 5  # of many classes, so many have a colour


def draw_learning_curves(history: Mapping[str, Series], path: Path) -> bool:
    """Draw the loss, the validation metrics, each class's IoU and the learning rate over the steps.

    Of many classes, only the five with the lowest last IoU are named. A value that is not finite leaves a gap.

    Args:
        history: The history of each metric by its name, such as ``val/mean_iou``. A panel without metrics stays empty.
            Of several values of a step, the last one counts.
        path: The PNG, whose folder is created if it is missing.

    Returns:
        Whether there was anything to draw; otherwise, no file is written.

    Raises:
        OSError: If the file cannot be written.
    """
    curves = {name: _curve(series) for name, series in history.items()}
    curves = {name: curve for name, curve in curves.items() if np.isfinite(curve[1]).any()}
    losses = {name: curves[f"{name}/loss"] for name in ("train", "val") if f"{name}/loss" in curves}
    summary = {name: curves[key] for key, name in SUMMARY.items() if key in curves}
    classes = {name.removeprefix(IOU): curve for name, curve in curves.items() if name.startswith(IOU)}
    rate = {"": curves["train/learning_rate"]} if "train/learning_rate" in curves else {}
    shown = [*losses.values(), *summary.values(), *classes.values(), *rate.values()]
    if not shown:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    panels = figure.subplots(2, 2).ravel()
    _draw_losses(panels[0], losses)
    _name_lines(panels[1], _draw(panels[1], summary))
    _draw_classes(panels[2], classes)
    _draw(panels[3], rate)
    first, last = (pick(pick(steps) for steps, _ in shown) for pick in (min, max))
    margin = max(0.03 * (last - first), 1)
    for axes, label in zip(panels, ("loss", "validation metric", "IoU of each class", "learning rate"), strict=True):
        axes.set(xlabel="step", ylabel=label, xlim=(first - margin, last + margin))  # steps line up between panels
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=_TICKS)
        if axes.get_yscale() == "linear":
            axes.yaxis.get_major_locator().set_params(nbins=_TICKS)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.grid(alpha=0.3)
        else:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color="0.5")
    save(figure, path)
    return True


def _curve(series: Series) -> Curve:
    last = dict(series)  # a step that was trained again counts once
    steps = np.array(sorted(last), dtype=np.int64)
    values = np.array([last[step] for step in steps.tolist()], dtype=np.float64)
    return steps, np.where(np.isfinite(values), values, np.nan)


def _draw_losses(axes: Axes, losses: Mapping[str, Curve]) -> None:
    lines = {}
    for index, (name, (steps, values)) in enumerate(losses.items()):
        if name == "train" and steps.size >= _MANY_POINTS:
            every = max(steps.size // 50, 5)
            axes.plot(steps, values, color="C0", alpha=0.3, linewidth=0.7)
            name, values = f"train, mean of {every} steps", _running_mean(values, every)
        lines |= _draw(axes, {name: (steps, values)}, index)
    _name_lines(axes, lines)
    drawn = np.concatenate([values[~np.isnan(values)] for _, values in losses.values()] or [np.empty(0)])
    # A linear axis would flatten everything below a spike.
    if drawn.size and drawn.min() > 0 and drawn.max() > 20 * np.median(drawn):
        axes.set_yscale("log")


def _draw_classes(axes: Axes, classes: Mapping[str, Curve]) -> None:
    if len(classes) <= _MANY_CLASSES:
        _name_lines(axes, _draw(axes, classes))
        return
    last = {name: values[~np.isnan(values)][-1] for name, (_, values) in classes.items()}
    lowest = sorted(last, key=last.__getitem__)[:_LOWEST]
    others = [axes.plot(*classes[name], color="0.8", linewidth=0.8)[0] for name in classes.keys() - set(lowest)]
    lines = _draw(axes, {name: classes[name] for name in lowest})
    _name_lines(axes, {**lines, f"{len(others)} others": others[0]})


def _draw(axes: Axes, curves: Mapping[str, Curve], first_colour: int = 0) -> dict[str, Any]:
    """Draw curves and return their lines by name. Few points are marked, so that a single one can be seen."""
    lines = {}
    for index, (name, (steps, values)) in enumerate(curves.items(), start=first_colour):
        marker = "o" if steps.size < _MANY_POINTS else None
        lines[name] = axes.plot(steps, values, color=f"C{index}", marker=marker, markersize=4)[0]
    return lines


def _name_lines(axes: Axes, lines: Mapping[str, Any]) -> None:
    """Draw a legend above the panel, where it covers nothing."""
    if lines:
        names = [plain(name) for name in lines]
        columns = max(1, min(4, 72 // (max(map(len, names)) + 6)))
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        axes.legend(lines.values(), names, ncols=columns, frameon=False, fontsize=9, **place)


def _running_mean(values: np.ndarray, every: int) -> np.ndarray:
    """Return the mean of those of the ``every`` values around each one that are not NaN; NaN if all are."""
    known = ~np.isnan(values)
    starts = np.arange(values.size) - every // 2
    stops = np.minimum(starts + every, values.size)
    starts = np.maximum(starts, 0)
    # Differences of running sums are fast: a convolution would take minutes for a million values.
    counts, sums = (np.concatenate([[0], np.cumsum(array)]) for array in (known, np.where(known, values, 0)))
    count = counts[stops] - counts[starts]
    return np.divide(sums[stops] - sums[starts], count, out=np.full(values.shape, np.nan), where=count > 0)
