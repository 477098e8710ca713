"""One picture of a whole training: the worst, the median and the best validation image at several evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fcnlab.data.channels import to_rgb
from fcnlab.drawing.lettering import ROW, legend, line
from fcnlab.drawing.palette import class_palette
from fcnlab.drawing.panels import class_entries, fitted, gap_beside
from fcnlab.drawing.side_by_side import compared, error_entries

MOST_ROWS = 8
"""The number of evaluations that a sheet shows at most."""

_SIDE = 112  # pixels of a panel's longer side


def contact_strip(
    images: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    title: str,
    *,
    class_names: Sequence[str],
    ignore_index: int,
    class_colours: Sequence[Sequence[int]] | np.ndarray = (),
) -> np.ndarray:
    """Draw a row of a contact sheet: each image with its prediction and errors, under its title.

    Args:
        images: The title, the image (H x W x C uint8 or uint16), the label (H x W) and the prediction of each. The
            prediction may be smaller; image and label are reduced to its size.
        title: The line above the row.
        class_names: The names of the classes, without void.
        ignore_index: The label of void pixels.
        class_colours: The colours of the classes; if empty, those of `class_palette`.

    Returns:
        A uint8 RGB picture.
    """
    cells, seen = [], []
    for name, image, label, prediction in images:
        size = prediction.shape[::-1]
        image = cv2.resize(to_rgb(image), size, interpolation=cv2.INTER_AREA)
        label = cv2.resize(label.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
        seen += [label.ravel(), prediction.ravel()]
        panels = compared(image, label, prediction, class_names, ignore_index, class_colours)
        shown = [fitted(panels[key], _SIDE) for key in ("image", "label", "prediction", "errors")]
        gap = np.full((len(shown[0]), gap_beside(shown[0].shape[1]), 3), 255, np.uint8)
        row = np.hstack([part for panel in shown for part in (panel, gap)])
        cells.append(np.vstack([line(name, row.shape[1]), row]))
    palette = class_palette(class_names, class_colours)
    errors = error_entries(class_names)
    rows = max(2, max(map(len, cells)) // ROW - len(errors))
    entries = [*class_entries(np.concatenate(seen), palette, class_names, rows), *errors]
    row = _beside([*cells, legend(entries)])
    return np.vstack([line(title, row.shape[1]), row])


def contact_sheet(strips: Sequence[np.ndarray]) -> np.ndarray:
    """Put rows of contact sheets below each other, in one uint8 RGB picture."""
    width = max(strip.shape[1] for strip in strips)
    return np.vstack([_widened(strip, width) for strip in strips])


def shown_places(count: int) -> list[int]:
    """Return which of so many evaluations a sheet shows: the first, the last, and others that are evenly spaced."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, MOST_ROWS))})


def read_strip(path: Path) -> np.ndarray | None:
    """Read a row that was written before; None if the file is gone or damaged."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    height = max(map(len, parts))
    gap = np.full((height, 12, 3), 255, np.uint8)
    return np.hstack([piece for part in parts for piece in (_heightened(part, height), gap)])


def _heightened(part: np.ndarray, height: int) -> np.ndarray:
    return np.pad(part, ((0, height - len(part)), (0, 0), (0, 0)), constant_values=255)


def _widened(strip: np.ndarray, width: int) -> np.ndarray:
    return np.pad(strip, ((0, 6), (0, width - strip.shape[1]), (0, 0)), constant_values=255)
