"""Cuts a large image into overlapping tiles whose logits are those of the whole image.

A tile begins at a multiple of 32, so that the grid of the poolings is the same as in the whole image. The logits near a
tile's edges are dropped, except where the edge is the image's: beyond it the network sees the same zeros in a tile as
in the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from fcnlab.core.errors import ConfigError
from fcnlab.models.fcn import GRID


class Span(NamedTuple):
    """The extent of a tile along one axis, in pixels of the image.

    Attributes:
        start: The beginning of the tile, a multiple of 32.
        stop: The end of the tile, a multiple of 32; it may lie beyond the image, which is padded with zeros.
        first: The beginning of the part that is kept.
        last: The end of the part that is kept.
    """

    start: int
    stop: int
    first: int
    last: int


class Tile(NamedTuple):
    """A rectangular part of the image."""

    rows: Span
    columns: Span


def overlap(kernel_size: int, reach: int) -> int:
    """Return by how many pixels a tile must exceed its kept part so that the logits are those of the whole image.

    Back from the logits, these are one cell of 32 pixels for the bilinear upsampling (each skip reaches less far, since
    its map is finer and lies lower), half of fc6's kernel at 32 pixels a cell, and what the encoder sees beyond a cell
    of its coarsest map. For VGG-16, that is one pixel of its own map for each of the 3x3 convolutions, 90 in all. With
    the 7x7 of fc6 that makes 218 pixels, which agrees with the receptive field of 404 pixels of VGG-16 with fc6
    (2 * 186 + 32).

    In a published network, the cells lie 3 pixels further to the left and further up, which makes 221 and 215 pixels.
    AlexNet sees 196 pixels to the left and 191 to the right.

    Args:
        kernel_size: The side of fc6's kernel; 1 where there is no fc6.
        reach: The attribute of the encoder: see `fcnlab.models.encoders`.

    Returns:
        A multiple of 32: 224 for VGG-16's kernel of 7 and for the published AlexNet's of 6.
    """
    return round_up(GRID + kernel_size // 2 * GRID + reach)


def round_up(length: int) -> int:
    """Return the smallest multiple of 32 that is not less than ``length``."""
    return -(-length // GRID) * GRID


def spans(length: int, largest: int, margin: int) -> list[Span]:
    """Cut one axis into tiles of equal length, the smallest that needs no more tiles than ``largest``.

    Args:
        length: The length of the image.
        largest: The largest length of a tile, a multiple of 32.
        margin: The number of pixels that are dropped on an inner side, a multiple of 32.

    Raises:
        ConfigError: If a tile would have nothing but margins.
    """
    padded = round_up(length)
    if padded <= largest:
        return [Span(0, padded, 0, length)]
    if largest <= 2 * margin:
        raise ConfigError(f"tile={largest}: must be at least {2 * margin + GRID}, since {margin} on each side overlap")
    count = -(-(padded - 2 * margin) // (largest - 2 * margin))
    size = round_up(-(-(padded + 2 * margin * (count - 1)) // count))
    cut: list[Span] = []
    while not cut or cut[-1].stop < padded:
        start = min(len(cut) * (size - 2 * margin), padded - size)
        stop = start + size
        cut.append(Span(start, stop, cut[-1].last if cut else 0, length if stop == padded else stop - margin))
    return cut


def tiles(height: int, width: int, largest: int, margin: int) -> Iterator[Tile]:
    """Cut an image, row by row.

    Args:
        height: The height of the image.
        width: The width of the image.
        largest: The largest side of a tile in pixels, rounded down to a multiple of 32.
        margin: The result of `overlap`.

    Raises:
        ConfigError: If a tile would have nothing but margins.
    """
    largest = largest // GRID * GRID
    for rows, columns in product(spans(height, largest, margin), spans(width, largest, margin)):
        yield Tile(rows, columns)
