"""Parts of a page of a TIFF, read without the rest: an image of any size is cut into tiles in bounded memory.

A page is stored in pieces, which are tiles or strips of rows. Only those that a part touches are read and decoded, and
of an uncompressed page only the rows. A page that is compressed as one large piece is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.orientation import ORIENTATION

if TYPE_CHECKING:
    from tifffile import TiffPage

LARGEST_PIECE = 2**28
"""The largest size in bytes of a decoded piece of a page."""

_SEPARATE = 2  # how a TIFF says that its channels lie one after the other
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = range(4)  # what the values of a page can mean
_JPEG = (6, 7, 34892, 33007)  # the numbers of compressions that share tables between pieces
_NONE = 1  # the number of the compression that is none


class Part(NamedTuple):
    """A rectangle of an image.

    Attributes:
        top: The first row.
        left: The first column.
        height: The number of rows.
        width: The number of columns.
    """

    top: int
    left: int
    height: int
    width: int


def size_of(page: TiffPage, path: object) -> tuple[int, int]:
    """Return the height and width of a page.

    Raises:
        DataError: If the page is to be turned, since parts are those of the stored pixels.
    """
    if int(page.keyframe.tags.valueof(ORIENTATION, 1)) != 1:
        raise DataError(f"image '{path}' is to be turned by its metadata, and tiles are cut upright: save it upright")
    return page.keyframe.imagelength, page.keyframe.imagewidth


def read_part(page: TiffPage, part: Part, path: object) -> np.ndarray:
    """Read a part of a page.

    Args:
        page: The page, whose file is open.
        part: The part, which lies within the page.
        path: The name of the file, for errors.

    Returns:
        height x width, or height x width x samples, with the values that the file holds.

    Raises:
        DataError: If the page is compressed in too large pieces, or in a way that is not read, or is damaged.
    """
    key = page.keyframe
    if key.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE):
        raise DataError(f"image '{path}' has colours of a kind that is not cut into tiles: save it as RGB or grey")
    if page.is_memmappable and _is_contiguous(page):
        try:
            return _mapped(page, part)
        except (OSError, ValueError):
            raise DataError(f"image '{path}' is damaged or truncated: replace it, or remove it") from None
    pieces = list(_pieces(page, part))
    largest = max(piece.nbytes for piece in pieces)
    if largest > LARGEST_PIECE:
        raise DataError(
            f"image '{path}' is compressed in pieces of {largest / 2**20:,.0f} MiB, each of which would have to be "
            "read whole: save it in tiles, as OME-TIFFs are"
        )
    samples = key.samplesperpixel
    pixels = np.zeros((part.height, part.width, samples), key.dtype)
    for piece in pieces:
        decoded = _decoded(page, piece.index, path)
        if decoded is not None:
            _place(pixels, part, *decoded)
    return pixels[..., 0] if samples == 1 else pixels


class _Piece(NamedTuple):
    """A tile or strip of a page, by its number, with the bytes that it takes once it is decoded."""

    index: int
    nbytes: int


def _pieces(page: TiffPage, part: Part) -> Iterator[_Piece]:
    """Yield the pieces that a part touches."""
    key = page.keyframe
    if key.is_tiled:
        height, width = key.tilelength, key.tilewidth
    else:
        height, width = min(key.rowsperstrip, key.imagelength), key.imagewidth
    down, across = -(-key.imagelength // height), -(-key.imagewidth // width)
    planes = key.samplesperpixel if key.planarconfig == _SEPARATE and key.samplesperpixel > 1 else 1
    nbytes = height * width * (key.samplesperpixel // planes) * key.dtype.itemsize
    for plane in range(planes):
        for row in range(part.top // height, (part.top + part.height - 1) // height + 1):
            for column in range(part.left // width, (part.left + part.width - 1) // width + 1):
                yield _Piece((plane * down + row) * across + column, nbytes)


def _decoded(page: TiffPage, index: int, path: object) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """Return a piece, D x H x W x S, and its place: plane, depth, row, column, sample; None for one without content."""
    key, file = page.keyframe, page.parent.filehandle
    length = page.databytecounts[index]
    if length == 0:
        return None
    more = {}
    if key.compression in _JPEG:
        more = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
    try:
        file.seek(page.dataoffsets[index])
        segment, place, shape = key.decode(file.read(length), index, **more)
    except Exception as error:  # What tifffile raises depends on where the damage is.
        if isinstance(error, ImportError) or "imagecodecs" in str(error):
            name = getattr(key.compression, "name", key.compression)
            raise DataError(
                f"image '{path}': its compression ({name}) is not read in parts; save it uncompressed or with deflate, "
                "or pip install imagecodecs"
            ) from None
        raise DataError(f"image '{path}' is damaged or truncated: replace it, or remove it") from None
    return None if segment is None else (segment[: shape[0], : shape[1], : shape[2]], place)


def _place(pixels: np.ndarray, part: Part, segment: np.ndarray, place: tuple[int, ...]) -> None:
    """Copy what a piece has of a part."""
    plane, _, top, left, sample = place
    samples = segment.shape[3]
    first = (max(top, part.top), max(left, part.left))
    last = (min(top + segment.shape[1], part.top + part.height), min(left + segment.shape[2], part.left + part.width))
    inside = segment[0, first[0] - top : last[0] - top, first[1] - left : last[1] - left]
    rows = slice(first[0] - part.top, last[0] - part.top)
    columns = slice(first[1] - part.left, last[1] - part.left)
    channel = plane + sample
    pixels[rows, columns, channel : channel + samples] = inside


def _is_contiguous(page: TiffPage) -> bool:
    """Whether the pieces of a page lie one after the other, as `_mapped` takes them to do."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    return list(page.dataoffsets[1:]) == ends[:-1]


def _mapped(page: TiffPage, part: Part) -> np.ndarray:
    """Return a part of an uncompressed page, of whose file only the pages of memory are read that hold it."""
    key = page.keyframe
    samples = key.samplesperpixel
    planar = key.planarconfig == _SEPARATE and samples > 1
    shape = (key.imagelength, key.imagewidth)
    stored = np.memmap(
        Path(page.parent.filehandle.path),
        np.dtype(key.dtype).newbyteorder(page.parent.byteorder),
        "r",
        page.dataoffsets[0],
        (samples, *shape) if planar else (*shape, samples),
    )
    rows, columns = slice(part.top, part.top + part.height), slice(part.left, part.left + part.width)
    found = np.moveaxis(stored[:, rows, columns], 0, -1) if planar else stored[rows, columns]
    pixels = np.array(found, key.dtype.newbyteorder("="))
    return pixels[..., 0] if samples == 1 else pixels
