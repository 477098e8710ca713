"""Text in pictures that are drawn pixel by pixel: titles of panels, and legends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnlab.drawing.captions import caption

ROW = 22
"""The height of a line of text, in pixels."""

_FONT_SIZE = 14

Entry = tuple[tuple[int, int, int], str]
"""An RGB colour, 0 to 255, and the text that explains it."""


@lru_cache(maxsize=256)
def line(text: str, width: int) -> np.ndarray:
    """Draw a text in black on white, ROW x ``width`` x 3 uint8; what does not fit in is cut off."""
    canvas = Image.new("RGB", (width, ROW), "white")
    ImageDraw.Draw(canvas).text((1, ROW // 2), text, fill="black", font=_font(), anchor="lm")
    return np.asarray(canvas)


def legend(entries: Sequence[Entry]) -> np.ndarray:
    """Draw a line for each entry, a square of its colour and its text, as a uint8 RGB picture."""
    return _legend(tuple(((int(r), int(g), int(b)), caption(text)) for (r, g, b), text in entries))


@lru_cache(maxsize=64)
def _legend(entries: tuple[Entry, ...]) -> np.ndarray:
    font = _font()
    width = ROW + 8 + max((int(font.getlength(text)) for _, text in entries), default=0) + 4
    canvas = Image.new("RGB", (width, ROW * len(entries)), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (colour, text) in enumerate(entries):
        top = row * ROW
        draw.rectangle((2, top + 3, ROW - 2, top + ROW - 4), fill=colour, outline="grey")
        draw.text((ROW + 6, top + ROW // 2), text, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """Return matplotlib's font, which covers many alphabets, without importing matplotlib."""
    folder = Path(find_spec("matplotlib").origin).parent
    return ImageFont.truetype(str(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), _FONT_SIZE)
