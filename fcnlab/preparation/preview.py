"""A page of samples that shows whether images and labels belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fcnlab.drawing.figures import plain, save
from fcnlab.drawing.label_maps import overlay

SHOWN = 6
"""The number of samples on the page."""

_DPI = 110
_MOST_CLASSES = 40


def draw(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    pixels: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    colours: np.ndarray,
    path: Path,
) -> None:
    """Draw samples beside their labels with a legend, and how frequent each class is.

    Args:
        samples: The name, H x W x 3 uint8 image and H x W uint8 label of each sample.
        pixels: The number of pixels of each class by split, C int64.
        class_names: The names of the C classes.
        colours: The colour of each value of a label, 256 x 3 uint8 RGB.
        path: The PNG file to write.

    Raises:
        OSError: If it cannot be written.
    """
    from matplotlib.figure import Figure

    shown = min(len(class_names), _MOST_CLASSES)
    columns, rows = 2, -(-len(samples) // 2)
    height = 2.6 * rows + 0.26 * shown + 1.4
    figure = Figure(figsize=(11, height), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[2.6] * rows + [0.26 * shown + 1.0])
    for number, (name, image, label) in enumerate(samples):
        axes = figure.add_subplot(grid[number // columns, number % columns])
        present = np.unique(label)
        present = present[present < len(class_names)]
        names = [class_names[index] for index in present]
        order = np.full(256, 255, np.uint8)
        order[present] = np.arange(len(present))
        axes.imshow(overlay(image, order[label], _present_first(colours, present), names, "label"))
        axes.set_title(plain(name), fontsize=8)
        axes.axis("off")
    axes = figure.add_subplot(grid[rows, :])
    places = np.arange(shown)
    for shift, (split, counts) in zip((-0.2, 0.2), pixels.items(), strict=False):
        share = 100 * counts[:shown] / max(counts.sum(), 1)
        axes.barh(places + shift, share, height=0.38, label=split, alpha=1.0 if shift < 0 else 0.5, color="C0")
    axes.set_yticks(places, [plain(name) for name in class_names[:shown]], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="percent of the labelled pixels")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def _present_first(colours: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return a table of 256 colours: those of the present classes first, and void's for all others."""
    table = np.tile(colours[255], (256, 1))
    table[: len(present)] = colours[present]
    return table
