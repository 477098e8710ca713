"""How a large image is cut into overlapping tiles whose logits are those of the whole image.

A tile begins at a multiple of 32, so that the grid of the poolings stays where it is in the whole image. What a tile
says of the pixels near its own edges is thrown away, unless the edge is the image's: there the network sees the same
zeros beyond it in a tile as in the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from fcnlab.core.errors import ConfigError
from fcnlab.models.vgg import BLOCKS

GRID = 2 ** len(BLOCKS)
"""Pixels between two cells of the coarsest map."""


class Span(NamedTuple):
    """One tile along one axis, in pixels of the image.

    Attributes:
        start: Where the tile begins, a multiple of 32.
        stop: Where it ends, likewise; it may lie beyond the image, which is padded with zeros.
        first: Where the part begins that is kept.
        last: Where that part ends.
    """

    start: int
    stop: int
    first: int
    last: int


class Tile(NamedTuple):
    """A rectangle of the image."""

    rows: Span
    columns: Span


def overlap(kernel_size: int) -> int:
    """How many pixels beyond what is kept a tile must reach, so that its logits are those of the whole image.

    Followed back from the logits: one cell of 32 pixels for the bilinear upsampling (each skip reaches less far, since
    its map is finer and lies lower), half of fc6's kernel at 32 pixels a cell, and for each of the 3x3 convolutions one
    pixel of its own map, 90 in all. For the 7x7 of fc6 that is 218 pixels, which agrees with the receptive field of
    404 pixels of VGG-16 with fc6 (2 * 186 + 32).

    Args:
        kernel_size: Of fc6.

    Returns:
        A multiple of 32: 224 for the network as published.
    """
    convolutions = sum(count * 2**block for block, (count, _) in enumerate(BLOCKS))
    return round_up(GRID + kernel_size // 2 * GRID + convolutions)


def round_up(length: int) -> int:
    """The next multiple of 32."""
    return -(-length // GRID) * GRID


def spans(length: int, largest: int, margin: int) -> list[Span]:
    """Cut one axis.

    All tiles are of one length, the smallest that takes no more tiles than ``largest`` does.

    Args:
        length: Of the image.
        largest: Length of a tile, a multiple of 32.
        margin: What is thrown away on an inner side, a multiple of 32.

    Raises:
        ConfigError: If the tile is all margin.
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
        height: Of the image.
        width: Of the image.
        largest: Side of a tile in pixels, rounded down to a multiple of 32.
        margin: As `overlap` gives it.

    Raises:
        ConfigError: If the tile is all margin.
    """
    largest = largest // GRID * GRID
    for rows, columns in product(spans(height, largest, margin), spans(width, largest, margin)):
        yield Tile(rows, columns)
