"""Areas of a label, drawn as the tools that annotated them show them."""

from __future__ import annotations

import cv2
import numpy as np

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
    radius = round(float(np.hypot(*(points[1] - points[0]))))
    disc(labels, points[0], radius, index)


def disc(labels: np.ndarray, centre: np.ndarray, radius: int, index: int) -> None:
    """Fill a disc of a radius in pixels about a point; see `polygon`."""
    at = tuple(np.rint(centre).astype(int).tolist())
    cv2.circle(labels, at, min(radius, _LARGEST_RADIUS), int(index), cv2.FILLED)


def line(labels: np.ndarray, points: np.ndarray, index: int, width: int = LINE_WIDTH) -> None:
    """Draw a line through at least two points; see `polygon`."""
    cv2.polylines(labels, [np.rint(points).astype(np.int32)], False, int(index), width)


def paste(labels: np.ndarray, mask: np.ndarray, points: np.ndarray, index: int) -> None:
    """Draw the pixels of a mask, h x w or h x w x C, whose upper left corner is the least of some points."""
    column, row = np.rint(points.min(axis=0)).astype(int)
    top, left = max(row, 0), max(column, 0)
    part = labels[top:, left:]
    mask = mask.reshape(*mask.shape[:2], -1).any(axis=2)[top - row :, left - column :]
    mask = mask[: part.shape[0], : part.shape[1]]
    part[: mask.shape[0], : mask.shape[1]][mask] = index
