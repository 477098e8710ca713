"""JSON files of annotation tools, and what all of them share."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import read_text, shown
from fcnlab.data.sample_names import first_few

_LARGEST = 256 * 2**20  # bytes
_FARTHEST = 1e6  # pixels: OpenCV counts in 32 bits

VOID = 255
"""The class index of void in what is prepared."""

_BACKGROUND = ("_background_", "__background__")
_VOID_NAMES = ("void", "ignore", "__ignore__")


def read_json(path: Path) -> Any:
    """Return what a JSON file in UTF-8 holds, with or without a byte-order mark.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return json.loads(read_text(path, _LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:150]
        raise DataError(f"annotation '{path}' cannot be read ({reason})") from None


def index_of(name: str, class_names: Sequence[str], path: Path) -> int:
    """Return the class index of a label's name; `VOID` for ``void``, ``ignore`` and LabelMe's ``__ignore__``.

    LabelMe's own ``_background_`` is the first class.

    Raises:
        DataError: If it is the name of no class.
    """
    if name in class_names:
        return list(class_names).index(name)
    if name.lower() in _VOID_NAMES:
        return VOID
    if name.lower() in _BACKGROUND:
        return 0
    raise DataError(
        f"annotation '{path}' has the label '{shown(name)}', which is none of {first_few(class_names)}: set `classes`"
    )


def points_of(value: Any) -> np.ndarray:
    """Return coordinates, N x 2 float64, which may lie outside the image but not anywhere.

    Args:
        value: A list of pairs, or of x and y in turn.

    Raises:
        ValueError: If it is something else, or has a coordinate that is not finite.
        TypeError: Likewise.
    """
    points = np.array(value, np.float64)
    if points.ndim == 1:
        points = points.reshape(-1, 2)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError("no pairs of finite coordinates")
    return points.clip(-_FARTHEST, _FARTHEST)


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return the height and width that a document states for an image; None if it states none."""
    try:
        if all(isinstance(side, (int, float)) and math.isfinite(side) and side >= 1 for side in (height, width)):
            return int(height), int(width)
    except OverflowError:  # an integer that is larger than any float
        pass
    return None


def is_file(path: Path) -> bool:
    """Whether a path that a document names is a file, which one with a name too long for the system is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
