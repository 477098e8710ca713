"""Images of any number of channels, in 8 or 16 bits, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np


def full_range(image: np.ndarray) -> int:
    """Return the largest value of an image's type: 255 or 65535."""
    return 65535 if image.dtype == np.uint16 else 255


def by_fours(function: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """Apply a function of OpenCV to an image, four channels at a time, since most of them take no more.

    Args:
        function: A function that treats every channel alike. It may drop the last axis of a single one, as OpenCV does.
        image: H x W x C, with any number of channels.

    Returns:
        An image with as many channels.
    """
    count = image.shape[2]
    groups = [image] if count <= 4 else [np.ascontiguousarray(image[..., at : at + 4]) for at in range(0, count, 4)]
    made = [with_axis(function(group)) for group in groups]
    return made[0] if len(made) == 1 else np.concatenate(made, axis=2)


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each value of an image by the table's entry for it; the table has one for every value of the type."""
    if image.dtype == np.uint8:
        return cv2.LUT(image, table).reshape(image.shape)
    return table[image]


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image for people, H x W x 3 uint8: one channel is shown as grey, of more than three the first three."""
    image = in_bits(image, 8)
    count = image.shape[2]
    if count == 3:
        return image
    if count == 1:
        return np.repeat(image, 3, axis=2)
    if count == 2:
        return np.dstack([image, np.zeros_like(image[..., :1])])
    return np.ascontiguousarray(image[..., :3])


def in_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return an image, uint8 or uint16, scaled to the full range of 8 or 16 bits."""
    if bits == 8 and pixels.dtype == np.uint16:
        return cv2.convertScaleAbs(pixels, alpha=255 / 65535).reshape(pixels.shape)
    if bits == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(257)
    return pixels


def in_range(pixels: np.ndarray, value_range: Sequence[int], bits: int) -> np.ndarray:
    """Return an image of 16 bits in which a range of values became the full range of 8 or 16 bits.

    Args:
        pixels: The image, uint16.
        value_range: The value that becomes 0 and the one that becomes 255 or 65535. What lies beyond is clipped.
        bits: The bits of the result.
    """
    return _table(*value_range, bits)[pixels]


@lru_cache(maxsize=4)
def _table(lowest: int, highest: int, bits: int) -> np.ndarray:
    """Return what each value of 16 bits becomes; see `in_range`."""
    share = np.clip((np.arange(65536) - lowest) / (highest - lowest), 0, 1)
    kind = np.uint16 if bits == 16 else np.uint8
    return np.rint(share * np.iinfo(kind).max).astype(kind)


def with_axis(pixels: np.ndarray) -> np.ndarray:
    """Return an image as H x W x C; OpenCV drops the axis of a single channel."""
    return pixels[..., None] if pixels.ndim == 2 else pixels
