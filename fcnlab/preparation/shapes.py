"""Areas of a label, drawn as the tools that annotated them show them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageDraw

LINE_WIDTH = 10
"""The width in pixels at which LabelMe draws a line."""

POINT_RADIUS = 5
"""The radius in pixels at which LabelMe draws a point."""

_LARGEST_RADIUS = 10**5  # OpenCV counts in 32 bits


def polygon(labels: np.ndarray, points: np.ndarray, index: int) -> None:
    """Fill a polygon of at least three points.

    Args:
        labels: H x W uint8, which is drawn on.
        points: N x 2, x before y, in pixels.
        index: The value.
    """
    cv2.fillPoly(labels, [np.rint(points).astype(np.int32)], int(index))


def rectangle(labels: np.ndarray, corners: np.ndarray, index: int) -> None:
    """Fill a rectangle between two opposite corners, 2 x 2; see `polygon`."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    polygon(labels, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), index)


def circle(labels: np.ndarray, points: np.ndarray, index: int) -> None:
    """Fill a circle about the first point through the second, 2 x 2; see `polygon`."""
    radius = min(round(float(np.hypot(*(points[1] - points[0])))), _LARGEST_RADIUS)
    cv2.circle(labels, tuple(np.rint(points[0]).astype(int).tolist()), radius, int(index), cv2.FILLED)


def spot(labels: np.ndarray, point: np.ndarray, index: int, radius: int = POINT_RADIUS) -> None:
    """Fill a disc about a point, as LabelMe draws a point; see `polygon`."""
    x, y = point.tolist()
    _with_pil(labels, index, lambda draw: draw.ellipse([x - radius, y - radius, x + radius, y + radius], 1, 1))


def line(labels: np.ndarray, points: np.ndarray, index: int, width: int = LINE_WIDTH) -> None:
    """Draw a line through at least two points, as LabelMe draws it: with blunt ends; see `polygon`."""
    _with_pil(labels, index, lambda draw: draw.line([tuple(point) for point in points.tolist()], 1, width))


def paste(
    labels: np.ndarray, mask: np.ndarray, points: np.ndarray, index: int, size: tuple[int, int] | None = None
) -> None:
    """Draw the pixels of a mask.

    Args:
        labels: H x W uint8, which is drawn on.
        mask: h x w or h x w x C.
        points: N x 2; their least is the upper left corner of the mask.
        index: The value.
        size: The height and width of the image that mask and points were made for; None for that of the labels.
    """
    mask = mask.reshape(*mask.shape[:2], -1).any(axis=2)
    corner = np.rint(points.min(axis=0)).astype(int)[::-1]
    places, parts = [], []
    for sources, first, length in zip(nearest(labels.shape, size or labels.shape), corner, mask.shape, strict=True):
        inside = np.flatnonzero((sources >= first) & (sources < first + length))
        if not inside.size:
            return
        places.append(slice(inside[0], inside[-1] + 1))
        parts.append(sources[inside] - first)
    labels[tuple(places)][mask[np.ix_(*parts)]] = index


def nearest(shape: tuple[int, int], size: tuple[int, int]) -> list[np.ndarray]:
    """Return the pixels that an image is made of when it is scaled without a new value, for ``np.ix_``.

    Args:
        shape: The height and width that it is to have.
        size: The height and width that it has.

    Returns:
        The row for each new row and the column for each new column, int64.
    """
    return [np.arange(new) * old // new for new, old in zip(shape, size, strict=True)]


def _with_pil(labels: np.ndarray, index: int, function: Callable[[ImageDraw.ImageDraw], None]) -> None:
    """Draw with PIL, as LabelMe does, whose lines and discs differ from OpenCV's by a few pixels."""
    mask = Image.new("1", labels.shape[::-1])
    function(ImageDraw.Draw(mask))
    labels[np.asarray(mask)] = index
