"""Lays pictures of one size out side by side, under titles and beside a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from fcnlab.drawing.lettering import ROW, Entry, legend, line

_NARROWEST = 80  # pixels: the room that the longest title takes
_LEAST_ROWS = 12  # of a legend, however low the panels are


def side_by_side(panels: Mapping[str, np.ndarray], entries: Sequence[Entry], largest: int) -> np.ndarray:
    """Lay panels out in a row, each under its title, with a legend at the right.

    Args:
        panels: The uint8 RGB picture of each title; all have one size. A larger one is made smaller, and one that is
            narrower than its title is enlarged by a whole number.
        entries: The colours of the legend and their texts.
        largest: The largest height and width of a panel, in pixels.

    Returns:
        A uint8 RGB picture. The first row of the panels is row `ROW`, and the first panel begins at column 0.
    """
    scaled = {title: fitted(panel, largest) for title, panel in panels.items()}
    height, width = next(iter(scaled.values())).shape[:2]
    key, gap = legend(entries), gap_beside(width)
    picture = np.full((ROW + max(height, len(key)), len(scaled) * (width + gap) + key.shape[1], 3), 255, np.uint8)
    for number, (title, panel) in enumerate(scaled.items()):
        left = number * (width + gap)
        picture[:ROW, left : left + width] = line(title, width)
        picture[ROW : ROW + height, left : left + width] = panel
    picture[ROW : ROW + len(key), len(scaled) * (width + gap) :] = key
    return picture


def gap_beside(width: int) -> int:
    """Return the number of white columns between panels of this width."""
    return max(width // 64, 4)


def fitted(panel: np.ndarray, largest: int) -> np.ndarray:
    """Return a panel of a size at which it can be looked at: see `side_by_side`."""
    height, width = panel.shape[:2]
    factor = min(largest / max(height, width), 1.0)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return cv2.resize(panel, size, interpolation=cv2.INTER_AREA)
    whole = min(-(-_NARROWEST // width), largest // max(height, width))
    return panel if whole <= 1 else panel.repeat(whole, axis=0).repeat(whole, axis=1)


def legend_rows(height: int) -> int:
    """Return how many rows a legend may have beside panels of this height, in pixels."""
    return max(_LEAST_ROWS, height // ROW)


def class_entries(labels: np.ndarray, palette: np.ndarray, class_names: Sequence[str], rows: int) -> list[Entry]:
    """Return the legend of class indices: all classes, or those with the most pixels if there is no room for all.

    Args:
        labels: The class indices, uint8 of any shape; others than those of the classes, as of void, are left out.
        palette: The colours of the classes, at least C x 3 uint8 RGB.
        class_names: The names of the C classes.
        rows: The number of classes for which there is room.
    """
    count = len(class_names)
    shown = list(range(count))
    if count > rows:
        pixels = np.bincount(labels.ravel(), minlength=count)[:count]
        most = np.argsort(-pixels, kind="stable")[:rows]
        shown = sorted(int(index) for index in most if pixels[index])
    return [(tuple(palette[index].tolist()), class_names[index]) for index in shown]
