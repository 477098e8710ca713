"""Makes distinct colours for classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fcnlab.config.schema import VOC_CLASSES

VOID_COLOUR = (128, 128, 128)
"""The colour of void pixels, from which the default colours of classes keep away."""

_OKABE_ITO = (
    *((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
"""The colours of Okabe & Ito, "Color Universal Design", 2008, without black, which cannot be seen on dark images. The
first two stay far apart for the colour-blind, too."""

_RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
"""The matrix of IEC 61966-2-1 from linear sRGB to XYZ."""

_VISIONS = (
    np.eye(3),
    np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
)
"""What people with normal vision, protanopia and deuteranopia see of linear sRGB (Vienot, Brettel & Mollon, 1999)."""

_STEPS = 13  # values of each channel among the candidates
_DARKEST, _LIGHTEST = 30.0, 94.0  # L* of CIELAB: what is darker or lighter looks like black or like paper
_MOST_CLASSES = 256


def class_palette(class_names: Sequence[str], declared: Sequence[Sequence[int]] = ()) -> np.ndarray:
    """Return the colours of classes, C x 3 uint8 RGB.

    Args:
        class_names: The names of the C classes.
        declared: The colours that the data set declares. If it declares none, PASCAL VOC's 21 classes have VOC's
            colours, and others those of `default_palette`.
    """
    if len(declared) > 0:
        return np.array(declared, dtype=np.uint8)
    if tuple(class_names) == VOC_CLASSES:
        return voc_palette(len(class_names))
    return default_palette(len(class_names))


def default_palette(num_classes: int) -> np.ndarray:
    """Return colours that the colour-blind can tell apart, too, num_classes x 3 uint8 RGB; none of them is black.

    The first seven are those of Okabe & Ito. Each further one is, among evenly spaced colours, the one that is furthest
    from all before it, in CIELAB and for that of normal vision, protanopia and deuteranopia for which it is closest.
    """
    colours = _OKABE_ITO if num_classes <= len(_OKABE_ITO) else _continued()
    return np.array(colours[:num_classes], dtype=np.uint8).reshape(num_classes, 3)


def voc_palette(num_classes: int) -> np.ndarray:
    """Return distinct colours, num_classes x 3 uint8 RGB, by the rule of PASCAL VOC.

    The rule spreads the bits of a class's index over the channels.
    """
    index = np.arange(num_classes, dtype=np.int64)
    colours = np.zeros((num_classes, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


@lru_cache(maxsize=1)
def _continued() -> tuple[tuple[int, int, int], ...]:
    """Return the colours of Okabe & Ito and so many others that there are enough for any data set."""
    values = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = _seen(candidates)[0, :, 0]
    candidates = candidates[(lightness >= _DARKEST) & (lightness <= _LIGHTEST)]
    seen = _seen(candidates)
    taken = np.array([VOID_COLOUR, *_OKABE_ITO], dtype=np.uint8)
    nearest = np.full(len(candidates), np.inf)
    for colour in taken:
        nearest = np.minimum(nearest, _distance(seen, _seen(colour[None])))
    chosen = list(_OKABE_ITO)
    while len(chosen) < _MOST_CLASSES:
        best = int(nearest.argmax())
        chosen.append(tuple(candidates[best].tolist()))
        nearest = np.minimum(nearest, _distance(seen, seen[:, best : best + 1]))
    return tuple(chosen)


def _distance(seen: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the distance of each colour from another one, for the vision for which that is smallest."""
    return np.linalg.norm(seen - other, axis=-1).min(axis=0)


def _seen(colours: np.ndarray) -> np.ndarray:
    """Return uint8 sRGB colours (N x 3) as each of `_VISIONS` sees them, in CIELAB of D65: 3 x N x 3."""
    scaled = colours / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    seen = np.stack([np.clip(linear @ vision.T, 0, 1) for vision in _VISIONS])
    xyz = seen @ _RGB_TO_XYZ.T / _RGB_TO_XYZ.sum(axis=1)
    cubic = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(cubic, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
