"""Large images and their labels, cut into tiles of one size or nearly so, of which each is read alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fcnlab.core.errors import DataError
from fcnlab.data.decode import MAX_PIXELS
from fcnlab.data.image_files import Page, Region, size_of
from fcnlab.data.tiff_regions import Part
from fcnlab.data.zarr_images import SUFFIX


class Tile(NamedTuple):
    """A tile of an image with those of its labels.

    Attributes:
        name: The name of the image with the place of the tile, as ``slide_x0_y512``; a split keeps such images
            together.
        image: The image, or its tile.
        labels: Its labels, or their tiles, in the order that they were given in.
    """

    name: str
    image: Path | Page | Region
    labels: list[Path | Page | Region]


def tiles_of(
    name: str, image: Path | Page, labels: list[Path | Page], side: int | None, channels: int, bits: int
) -> list[Tile]:
    """Cut an image and its labels into tiles, as few as fit and of nearly one size; none of them is read for it.

    Args:
        name: The name of the image.
        image: The image.
        labels: Its labels, such as one mask for each class.
        side: The largest height and width of a tile, in pixels; None cuts nothing.
        channels: The channels that are declared, which say what the pages of a TIFF are.
        bits: The bits of a channel that are declared, likewise.

    Returns:
        The image as it is, if it is not larger than a tile.

    Raises:
        DataError: If an image cannot be read, is an OME-Zarr that is too large to be prepared whole, or has a label of
            another size.
    """
    is_zarr = [path.suffix.lower() == SUFFIX for path in (image, *labels)]
    if side is None and not any(is_zarr):
        return [Tile(name, image, list(labels))]
    height, width = size_of(image, channels, bits)
    if max(height, width) <= (side or max(height, width)) and not any(is_zarr):
        return [Tile(name, image, list(labels))]
    if side is None and height * width > MAX_PIXELS:  # of which it would take the memory to find out
        raise DataError(
            f"image '{image}' has {width} x {height} pixels, and at most {MAX_PIXELS:,} are read: cut it into tiles, "
            "as with tile=2048"
        )
    for label in labels:
        if (size := size_of(label, 3, 8)) != (height, width):
            raise DataError(
                f"image '{image}' is {width} x {height} pixels and its label '{label}' {size[1]} x {size[0]}: one that "
                "is cut into tiles needs a label of its size"
            )
    parts = list(_parts(height, width, side or max(height, width)))
    return [
        Tile(
            name if len(parts) == 1 else f"{name}_x{part.left}_y{part.top}",
            Region(image, part),
            [Region(label, part) for label in labels],
        )
        for part in parts
    ]


def _parts(height: int, width: int, side: int) -> Iterator[Part]:
    """Yield the tiles of an image from left to right and top to bottom."""
    rows, columns = _borders(height, side), _borders(width, side)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            yield Part(top, left, bottom - top, right - left)


def _borders(length: int, side: int) -> list[int]:
    """Divide a length into as few parts as are no longer than a side, which differ by one pixel at most."""
    count = -(-length // side)
    return [length * number // count for number in range(count + 1)]
