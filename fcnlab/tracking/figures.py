"""The pictures of a run: its learning curves and its confusion matrix.

They are drawn without pyplot, whose figures and backend belong to the whole process: a notebook's stay as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnlab.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Sequence[tuple[int, float]]
"""Steps with the values of a metric."""

Curve = tuple[np.ndarray, np.ndarray]
"""Steps in order, int64, and values, float64; NaN where they are not finite."""

SUMMARY = {
    "val/mean_iou": "mean IoU",
    "val/pixel_accuracy": "pixel accuracy",
    "val/mean_accuracy": "mean accuracy",
    "val/frequency_weighted_iou": "frequency-weighted IoU",
}
"""The four metrics of an evaluation, and what people call them."""

IOU = "val/iou/"
"""What the name of a class's IoU begins with."""

MODULES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
"""What drawing takes a quarter of a second to import."""

_DPI = 120
_TICKS = 5  # at most, and one more: each takes 5 ms to draw, of a figure's 400
_MANY_POINTS = 60  # from here on noise hides the trend
_MANY_CLASSES = 10  # as many as there are colours that one can tell apart
_LOWEST = 5  # classes that still have a colour when there are many
_MAX_NUMBERS = 25  # classes with which numbers in the cells can be read
_NAME_LENGTH = 28  # characters of a name


def learning_curves(history: Mapping[str, Series], path: Path) -> bool:
    """Draw the loss, the validation metrics, each class's IoU and the learning rate over the steps.

    With many classes the five of the lowest last IoU have a colour and a name. A value that is not finite leaves a gap.

    Args:
        history: From metric names, such as ``val/mean_iou``, to values with their steps. What is missing leaves its
            panel empty; of a step with several values the last one counts.
        path: The PNG; its folder is made when missing.

    Returns:
        False if there was nothing to draw, so that there is no file.

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

    figure = Figure(figsize=(11, 8), dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    panels = figure.subplots(2, 2).ravel()
    _draw_losses(panels[0], losses)
    _name_lines(panels[1], _draw(panels[1], summary))
    _draw_classes(panels[2], classes)
    _draw(panels[3], rate)
    first, last = (pick(pick(steps) for steps, _ in shown) for pick in (min, max))
    margin = max(0.03 * (last - first), 1)
    for axes, label in zip(panels, ("loss", "validation metric", "IoU of each class", "learning rate"), strict=True):
        axes.set(xlabel="step", ylabel=label, xlim=(first - margin, last + margin))  # the same steps above each other
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


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw which share of each class's pixels was predicted as which class.

    Args:
        counts: Pixels, C x C integers; rows are labels, columns predictions. A row without pixels stays grey.
        class_names: C of them.
        path: The PNG; its folder is made when missing.

    Raises:
        OSError: If the file cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    classes = len(class_names)
    total = counts.sum(axis=1, keepdims=True)
    percent = np.divide(100 * counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    numbers = classes <= _MAX_NUMBERS
    side = max(0.45 * classes, 3.2) if numbers else min(0.17 * classes, 14.0)  # inches
    figure = Figure(figsize=(side + 2.2, side + 1.0), dpi=_DPI, layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(percent, vmin=0, vmax=100, cmap=colormaps["Blues"].with_extremes(bad="0.88"))
    figure.colorbar(image, ax=axes, label="percent of the label's pixels")
    every = -(-classes // 80)  # as many names as there is room for
    ticks, names = range(0, classes, every), [plain(name) for name in class_names[::every]]
    size = 9 if numbers else 7
    axes.set_yticks(ticks, names, fontsize=size)
    if classes <= 3 and max(map(len, names)) <= 10:
        axes.set_xticks(ticks, names, fontsize=size)
    elif numbers:
        axes.set_xticks(ticks, names, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(ticks, names, fontsize=size, rotation=90)
    axes.set(xlabel="prediction", ylabel="label")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if numbers:
        _write_numbers(axes, percent, 11 if classes <= 6 else 7.5)
    save(figure, path)


def write_confusion_csv(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Write the pixel counts as a table: a row for each label, a column for each prediction, each with its name.

    Args:
        counts: C x C integers; rows are labels, columns predictions.
        class_names: C of them.
        path: The CSV in UTF-8; its folder is made when missing.

    Raises:
        OSError: If the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label \\ prediction", *class_names])
        for name, row in zip(class_names, counts.tolist(), strict=True):
            writer.writerow([name, *row])


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
    # One spike would flatten everything else.
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
    """The lines by name; few points are marked, so that one alone can be seen."""
    lines = {}
    for index, (name, (steps, values)) in enumerate(curves.items(), start=first_colour):
        marker = "o" if steps.size < _MANY_POINTS else None
        lines[name] = axes.plot(steps, values, color=f"C{index}", marker=marker, markersize=4)[0]
    return lines


def _name_lines(axes: Axes, lines: Mapping[str, Any]) -> None:
    """A legend above the panel, where it covers nothing."""
    if lines:
        names = [plain(name) for name in lines]
        columns = max(1, min(4, 72 // (max(map(len, names)) + 6)))
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        axes.legend(lines.values(), names, ncols=columns, frameon=False, fontsize=9, **place)


def _write_numbers(axes: Axes, percent: np.ndarray, size: float) -> None:
    for (row, column), value in np.ndenumerate(percent):
        if not np.isnan(value):
            colour = "white" if value > 50 else "black" if value > 0 else "0.6"
            text = axes.text(column, row, f"{value:.1f}" if value > 0 else "0", ha="center", va="center", color=colour)
            text.set(fontsize=size, in_layout=False)  # it is inside the axes, and measuring it takes long


def _running_mean(values: np.ndarray, every: int) -> np.ndarray:
    """The mean of what is not NaN among the ``every`` values around each; NaN where there is none."""
    known = ~np.isnan(values)
    starts = np.arange(values.size) - every // 2
    stops = np.minimum(starts + every, values.size)
    starts = np.maximum(starts, 0)
    # Differences of running sums, since convolving takes minutes when there are a million values.
    counts, sums = (np.concatenate([[0], np.cumsum(array)]) for array in (known, np.where(known, values, 0)))
    count = counts[stops] - counts[starts]
    return np.divide(sums[stops] - sums[starts], count, out=np.full(values.shape, np.nan), where=count > 0)


def plain(name: str) -> str:
    """One short line, without the dollars that matplotlib takes for mathematics."""
    name = " ".join(name.split())
    if len(name) > _NAME_LENGTH:
        name = f"{name[: _NAME_LENGTH // 2]}…{name[1 - _NAME_LENGTH // 2 :]}"  # long names often differ at the end
    return name.replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
