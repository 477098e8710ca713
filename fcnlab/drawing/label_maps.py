"""Writes label maps as files: as masks with a palette, or as pictures with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fcnlab.core.files import replacing
from fcnlab.drawing.panels import class_entries, legend_rows, side_by_side

_LARGEST = 1024  # pixels of a picture's image


def write_mask(path: Path, labels: np.ndarray, palette: np.ndarray) -> None:
    """Write class indices as an indexed PNG, which holds the indices and is shown in the colours of the classes.

    Args:
        path: The PNG, whose folder is created if it is missing. The file appears whole or not at all.
        labels: The class indices, H x W uint8.
        palette: The colours of the classes, C x 3 uint8 RGB.

    Raises:
        OSError: If the file cannot be written.
    """
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes())  # this also changes the mode of the image from grey to indexed
    with replacing(path) as temporary:
        image.save(temporary, format="png", compress_level=3)  # level 6 would take three times as long to save a tenth


def write_overlay(
    path: Path, image: np.ndarray, labels: np.ndarray, palette: np.ndarray, class_names: Sequence[str], title: str
) -> None:
    """Write what `overlay` draws as a PNG, which appears whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    picture = cv2.cvtColor(overlay(image, labels, palette, class_names, title), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, class_names: Sequence[str], title: str
) -> np.ndarray:
    """Draw an image and the image under the colours of its classes, side by side, with titles and a legend.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: The class indices, H x W uint8.
        palette: The colours of the classes, C x 3 uint8 RGB.
        class_names: The names of the C classes.
        title: The title over the classes, such as ``prediction``.

    Returns:
        A uint8 RGB picture as `side_by_side` lays it out, in which the image is at most 1024 pixels wide and high.
    """
    factor = min(_LARGEST / max(labels.shape), 1.0)
    if factor < 1:  # before it is coloured, which takes the time of as many pixels
        size = tuple(max(1, round(side * factor)) for side in labels.shape[::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    coloured = cv2.addWeighted(image, 0.5, palette[labels], 0.5, 0)
    entries = class_entries(labels, palette, class_names, legend_rows(labels.shape[0]))
    return side_by_side({"image": image, title: coloured}, entries, _LARGEST)
