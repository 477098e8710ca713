"""Label files, decoded."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.core.errors import DataError
from fcnlab.data.decode import PIL_ERRORS, is_truncated, read_file, require_size

_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # PIL's names of single-channel and palette images


def read_label(path: Path, *, white: int) -> np.ndarray:
    """Decode a label without changing a value; a palette image yields its indices.

    Args:
        path: The file; its name may have any letters.
        white: The value of the bright pixels of a 1-bit image; the others are 0.

    Returns:
        H x W, uint8, or a wider integer type if the file has one.

    Raises:
        DataError: If the file cannot be read or is truncated, or has more than `MAX_PIXELS` or several channels.
    """
    data = read_file(path, "label")
    require_size(data, path, "label")
    try:
        # OpenCV would turn a palette's indices into colours.
        with Image.open(BytesIO(data)) as image:
            mode = image.mode
            values = np.asarray(image) if mode in _MODES else None
        damaged = is_truncated(data)
    except PIL_ERRORS:
        damaged = True
    if damaged:
        raise DataError(f"label '{path}' is damaged or truncated: replace it, or remove it and its image")
    if values is None:
        raise DataError(
            f"label '{path}' is a colour image (mode {mode}): save labels as single-channel or palette PNG whose pixel "
            "values are classes"
        )
    return values * np.uint8(white) if mode == "1" else values
