"""Transforms that bend an image together with its label: rotation by any angle, elastic deformation.

`rotation` and `elastic` are factories for `fcnlab.registry.TRANSFORMS`: each takes the augmentation's keys and
``ignore_index``, and returns a `Transform`, or None if its range leaves nothing to do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fcnlab.data.channels import by_fours
from fcnlab.data.dataset import Sample, Transform

if TYPE_CHECKING:
    from fcnlab.config.schema import AugmentConfig


def rotate(sample: Sample, degrees: float, ignore_index: int) -> Sample:
    """Turn a sample anticlockwise about its centre.

    What comes from beyond the borders is void in the label, and the image's own reflection in the image, so that no
    edge appears that the network could learn.
    """
    height, width = sample.label.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    size = (width, height)
    image = by_fours(
        lambda group: cv2.warpAffine(group, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101),
        sample.image,
    )
    label = cv2.warpAffine(
        sample.label, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=ignore_index
    )
    return Sample(image, label, sample.name)


def displace(sample: Sample, columns: np.ndarray, rows: np.ndarray, ignore_index: int) -> Sample:
    """Take each pixel from somewhere else.

    Args:
        sample: An H x W image and its label.
        columns: How far to the right of each pixel its new value is taken, H x W float32, in pixels.
        rows: How far below each pixel its new value is taken, likewise.
        ignore_index: The label of what comes from beyond the borders.
    """
    height, width = sample.label.shape
    down, right = np.mgrid[0:height, 0:width].astype(np.float32)
    right += columns
    down += rows
    image = by_fours(
        lambda group: cv2.remap(group, right, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), sample.image
    )
    label = cv2.remap(
        sample.label, right, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=ignore_index
    )
    return Sample(image, label, sample.name)


def rotation(augment: AugmentConfig, ignore_index: int) -> Transform | None:
    """Make a transform that rotates by an angle of up to ``augment.rotation`` degrees either way."""
    if augment.rotation == 0:
        return None
    return lambda sample, rng: rotate(sample, rng.uniform(-augment.rotation, augment.rotation), ignore_index)


def elastic(augment: AugmentConfig, ignore_index: int) -> Transform | None:
    """Make a transform that bends a sample (Simard et al., ICDAR 2003; for microscopy Ronneberger et al. 2015).

    Displacements of ``augment.elastic`` pixels on average are drawn on a grid of ``augment.elastic_spacing`` pixels
    and interpolated.
    """
    if augment.elastic == 0:
        return None

    def bend(sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.label.shape
        grid = tuple(math.ceil(length / augment.elastic_spacing) + 3 for length in (height, width))
        # A draw from the normal distribution is sqrt(2 / pi) away from 0 on average.
        scale = np.float32(augment.elastic * math.sqrt(math.pi / 2))
        fields = []
        for _ in range(2):
            knots = rng.standard_normal(grid, dtype=np.float32) * scale
            enlarged = (round(grid[1] * augment.elastic_spacing), round(grid[0] * augment.elastic_spacing))
            field = cv2.resize(knots, enlarged, interpolation=cv2.INTER_CUBIC)
            fields.append(field[:height, :width])
        return displace(sample, fields[0], fields[1], ignore_index)

    return bend
