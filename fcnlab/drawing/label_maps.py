"""Writes label maps as files: as masks with a palette, or as pictures with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnlab.core.files import replacing
from fcnlab.drawing.captions import caption

_ROW = 22  # pixels of a class in the legend
_FONT_SIZE = 14
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
    path: Path, image: np.ndarray, labels: np.ndarray, palette: np.ndarray, class_names: Sequence[str]
) -> None:
    """Write what `overlay` draws as a PNG, which appears whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    picture = cv2.cvtColor(overlay(image, labels, palette, class_names), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Draw an image, the image under the colours of its classes, and a legend, side by side.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: The class indices, H x W uint8.
        palette: The colours of the classes, C x 3 uint8 RGB.
        class_names: The names of the C classes.

    Returns:
        A uint8 RGB picture, in which the image is at most 1024 pixels wide and high.
    """
    factor = min(_LARGEST / max(labels.shape), 1.0)
    if factor < 1:
        size = tuple(max(1, round(side * factor)) for side in labels.shape[::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    coloured = cv2.addWeighted(image, 0.5, palette[labels], 0.5, 0)
    height, width = labels.shape
    rows = max(1, max(height, _ROW * min(len(class_names), 12)) // _ROW)
    legend = _legend(_shown(labels, len(class_names), rows), tuple(class_names), palette.tobytes())
    gap = max(width // 64, 4)
    picture = np.full((max(height, legend.shape[0]), 2 * (width + gap) + legend.shape[1], 3), 255, np.uint8)
    picture[:height, :width] = image
    picture[:height, width + gap : 2 * width + gap] = coloured
    picture[: legend.shape[0], 2 * (width + gap) :] = legend
    return picture


def _shown(labels: np.ndarray, count: int, rows: int) -> tuple[int, ...]:
    """Return the classes that a legend with some number of rows names: all, or those with the most pixels."""
    if count <= rows:
        return tuple(range(count))
    pixels = np.bincount(labels.ravel(), minlength=count)
    most = np.argsort(-pixels, kind="stable")[:rows]
    return tuple(sorted(int(index) for index in most if pixels[index]))


@lru_cache(maxsize=64)
def _legend(shown: tuple[int, ...], class_names: tuple[str, ...], palette: bytes) -> np.ndarray:
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    font = _font()
    names = [caption(class_names[index]) for index in shown]
    width = _ROW + 8 + max(int(font.getlength(name)) for name in names) + 4
    canvas = Image.new("RGB", (width, _ROW * len(shown)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (index, name) in enumerate(zip(shown, names, strict=True)):
        top = row * _ROW
        colour = tuple(int(value) for value in colours[index])
        draw.rectangle((2, top + 3, _ROW - 2, top + _ROW - 4), fill=colour, outline="grey")
        draw.text((_ROW + 6, top + _ROW // 2), name, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """Return matplotlib's font, which covers many alphabets, without importing matplotlib."""
    folder = Path(find_spec("matplotlib").origin).parent
    return ImageFont.truetype(str(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), _FONT_SIZE)
