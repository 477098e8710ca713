"""Writes the confusion matrix of an evaluation, as a picture or as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcnlab.core.files import replacing
from fcnlab.drawing.figures import DPI, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NUMBERS = 25  # classes; with more, the numbers in the cells would be too small to read


def draw_confusion_matrix(counts: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw the share of each class's pixels that was predicted as each class.

    Args:
        counts: Numbers of pixels, C x C integers; rows are labels, columns predictions. A row without pixels is grey.
        class_names: The names of the C classes.
        path: The PNG, whose folder is created if it is missing.

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
    figure = Figure(figsize=(side + 2.2, side + 1.0), dpi=DPI, layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(percent, vmin=0, vmax=100, cmap=colormaps["Blues"].with_extremes(bad="0.88"))
    figure.colorbar(image, ax=axes, label="percent of the label's pixels")
    every = -(-classes // 80)  # there is room for 80 names
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
    """Write the numbers of pixels as a table with a named row for each label and a named column for each prediction.

    Args:
        counts: C x C integers; rows are labels, columns predictions.
        class_names: The names of the C classes.
        path: The CSV in UTF-8, whose folder is created if it is missing.

    Raises:
        OSError: If the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label \\ prediction", *class_names])
        for name, row in zip(class_names, counts.tolist(), strict=True):
            writer.writerow([name, *row])


def _write_numbers(axes: Axes, percent: np.ndarray, size: float) -> None:
    for (row, column), value in np.ndenumerate(percent):
        if not np.isnan(value):
            colour = "white" if value > 50 else "black" if value > 0 else "0.6"
            text = axes.text(column, row, f"{value:.1f}" if value > 0 else "0", ha="center", va="center", color=colour)
            text.set(fontsize=size, in_layout=False)  # measuring it takes long, and it is inside the axes anyway
