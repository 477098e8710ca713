"""Image files, decoded to the channels and bits that are declared for a data set or a network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from fcnlab.core.errors import DataError
from fcnlab.data.channels import in_bits, with_axis
from fcnlab.data.decode import EXTENSIONS, MAX_PIXELS, PIL_ERRORS, decode, read_file

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

ARRAY = ".npy"
"""The extension of an image as a numpy array, H x W x C or H x W, uint8 or uint16."""

IMAGE_EXTENSIONS = (*EXTENSIONS, ARRAY)
"""The extensions of image files, in lower case."""

_TIFF_EXTENSIONS = (".tif", ".tiff")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a TIFF begins; the last two are BigTIFFs
_TO_RGB = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
_PHOTOGRAPH = (3, 8)  # the channels and bits for which each page of a TIFF is an image, which OpenCV reads
_ORIENTATION = 0x0112  # the number of the EXIF tag, and of the TIFF's
_PLANAR = 2  # how a TIFF says that its channels lie one after the other
_BYTE = 8  # bits
_LARGEST = 2**30  # bytes of an array: without a limit, a few bytes of a file could claim all memory


def read(path: Path, channels: int = 3, bits: int = 8, *, upright: bool = False) -> np.ndarray:
    """Decode an image.

    A ``.npy`` is the array that it holds. A TIFF with as many pages as ``channels`` has a channel on each, except for
    3 channels of 8 bits, for which its first page is the image. Where 3 channels are declared, grey is repeated, and
    of red, green, blue and transparency the first three are taken; where 1 is, three equal channels are one.

    Args:
        path: The file; its name may have any letters.
        channels: The number of channels that is declared.
        bits: The bits of a channel, to which others are scaled: 8 or 16.
        upright: Whether to turn the image as its metadata (EXIF) say. An image with a label is not turned, since the
            label is not. A TIFF is always turned by its decoder.

    Returns:
        H x W x C, uint8 or uint16, colours in the order of RGB.

    Raises:
        DataError: If the file cannot be read, is damaged or too large, or has other channels or another type.
    """
    data = read_file(path, "image")
    if path.suffix.lower() == ARRAY:
        return _as_declared(_load(data, path), path, channels, bits)
    if data.startswith(_TIFF):
        return _as_declared(_decode_tiff(data, path, channels, bits), path, channels, bits)
    pixels = _as_declared(_in_rgb_order(decode(data, path)), path, channels, bits)
    return _turn_upright(pixels, data) if upright else pixels


def count_images(path: Path, channels: int, bits: int) -> int:
    """Return how many images a file holds: one for each page of a TIFF, unless these are the channels of one image."""
    pages = count_pages(path) if path.suffix.lower() in _TIFF_EXTENSIONS else 1
    return 1 if _is_stack(pages, channels, bits) else max(pages, 1)


def count_pages(path: Path) -> int:
    """Return the number of pages of a TIFF; 0 if it is damaged."""
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)  # OpenCV would write to the terminal that a file is damaged.
    try:
        return cv2.imcount(str(path))
    finally:
        cv2.setLogLevel(level)


def read_page(path: Path, page: int, channels: int = 3, bits: int = 8) -> np.ndarray:
    """Decode one page of a TIFF as an image of its own.

    Args:
        path: The file.
        page: The page, from 0.
        channels: As for `read`.
        bits: As for `read`.

    Returns:
        As `read` does.

    Raises:
        DataError: As `read` does.
    """
    planes = _decode_planes(path, path, page)
    if planes is not None:
        return _as_declared(planes, path, channels, bits)
    try:
        found, pages = cv2.imreadmulti(str(path), page, 1, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error:  # such as a page of more than MAX_PIXELS
        found = False
    if not found:
        raise DataError(f"image '{path}': page {page} is damaged or truncated: replace it")
    return _as_declared(_with_true_colours(pages[0], path, channels, page=page), path, channels, bits)


def _is_stack(pages: int, channels: int, bits: int) -> bool:
    """Whether the pages of a TIFF are the channels of one image."""
    return pages == channels > 1 and (channels, bits) != _PHOTOGRAPH


def _as_declared(pixels: np.ndarray, path: Path, channels: int, bits: int) -> np.ndarray:
    """Return an image, H x W or H x W x C, in the declared channels and bits."""
    kind = pixels.dtype.newbyteorder("=")
    if kind not in (np.uint8, np.uint16):
        raise DataError(f"image '{path}' has {pixels.dtype} pixels: convert it to uint8 or uint16")
    pixels = with_axis(pixels.astype(kind, copy=False))
    if channels == 1 and pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    elif channels == 3 and pixels.shape[2] == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    elif channels == 3 and pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    if pixels.shape[2] != channels:
        raise DataError(
            f"image '{path}' has {pixels.shape[2]} channels where {channels} are expected: set dataset.channels to "
            "what the images have, or replace the image"
        )
    return np.ascontiguousarray(in_bits(pixels, bits))


def _in_rgb_order(pixels: np.ndarray) -> np.ndarray:
    """Return what OpenCV decoded, with red first."""
    code = _TO_RGB.get(pixels.shape[2]) if pixels.ndim == 3 else None
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _decode_tiff(data: bytes, path: Path, channels: int, bits: int) -> np.ndarray:
    """Return the pixels of a TIFF, H x W or H x W x C."""
    if (channels, bits) == _PHOTOGRAPH:
        pixels = _decode_planes(BytesIO(data), path)
    else:
        pixels = _decode_channels(data, path, channels, bits)
    if pixels is not None:
        return pixels
    return _with_true_colours(decode(data, path), path, channels, data=data)


def _with_true_colours(
    pixels: np.ndarray, path: Path, channels: int, *, data: bytes | None = None, page: int = 0
) -> np.ndarray:
    """Return a page of a TIFF that OpenCV decoded, with red first.

    OpenCV multiplies the colours of 8 bits by the transparency. Where only colours are declared, PIL decodes them.
    """
    if channels != 3 or pixels.dtype != np.uint8 or pixels.shape[2:] != (4,):
        return _in_rgb_order(pixels)
    try:
        with Image.open(path if data is None else BytesIO(data)) as image:
            image.seek(page)
            return np.array(image.convert("RGB"))
    except PIL_ERRORS:
        raise DataError(f"image '{path}' is damaged or truncated: replace it, or remove it") from None


def _decode_channels(data: bytes, path: Path, channels: int, bits: int) -> np.ndarray | None:
    """Decode a TIFF whose channels lie on pages of their own, or which has two, or more than three.

    OpenCV multiplies a fourth channel by the others, and refuses a fifth.

    Returns:
        H x W x C, or None for a TIFF that OpenCV reads.
    """
    with _opened_tiff(BytesIO(data), path) as file:
        pages = len(file.pages)
        if _is_stack(pages, channels, bits):
            return _decode_stack(data, path, pages)
        page = file.pages[0]
        is_read_by_opencv = page.samplesperpixel in (1, 3) and not _is_in_planes(page)
        return None if is_read_by_opencv else _interleaved(page, path)


def _decode_planes(source: BytesIO | Path, path: Path, number: int = 0) -> np.ndarray | None:
    """Decode a page of a TIFF whose channels of 16 bits lie one after the other.

    Returns:
        H x W x C, or None for a page that is not like that, or that OpenCV has to refuse.

    Raises:
        DataError: If the page is like that and cannot be decoded.
    """
    is_in_planes = False
    try:
        with _opened_tiff(source, path) as file:
            page = file.pages[number]
            is_in_planes = _is_in_planes(page)
            return _interleaved(page, path) if is_in_planes else None
    except DataError:
        if is_in_planes:
            raise
        return None


def _is_in_planes(page: TiffPage) -> bool:
    """Whether the channels of a page have more than 8 bits and lie one after the other.

    OpenCV leaves memory that it has not written to among their pixels, so that each call gives others.
    """
    return page.planarconfig == _PLANAR and page.samplesperpixel > 1 and page.bitspersample > _BYTE


@contextmanager
def _opened_tiff(source: BytesIO | Path, path: Path) -> Iterator[TiffFile]:
    """Open a TIFF, from memory or from the disk; errors call it by its path.

    Raises:
        DataError: For whatever goes wrong within the block.
    """
    import tifffile  # This takes a quarter of a second, which only those who need it should pay.

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # It would write to the terminal that a file is damaged.
    try:
        with tifffile.TiffFile(source) as file:
            yield file
    except DataError:
        raise
    except Exception as error:  # What tifffile raises for a damaged file depends on where the damage is.
        if "imagecodecs" in str(error):
            raise DataError(
                f"image '{path}': its compression is not read with this many channels; save it uncompressed or with "
                "deflate, or pip install imagecodecs"
            ) from None
        raise DataError(f"image '{path}' is damaged or truncated: replace it, or remove it") from None


def _interleaved(page: TiffPage, path: Path) -> np.ndarray:
    """Return the pixels of a page, H x W x C, turned as its metadata say."""
    if page.imagelength * page.imagewidth > MAX_PIXELS or page.nbytes > _LARGEST:
        raise DataError(f"image '{path}' is too large: cut it into tiles")
    pixels = page.asarray()
    if pixels.ndim != 3:
        raise ValueError("the channels are neither interleaved nor in planes")
    pixels = np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels
    return _turned(pixels, int(page.tags.valueof(_ORIENTATION, 1)))


def _decode_stack(data: bytes, path: Path, count: int) -> np.ndarray:
    """Decode single channels on pages of one size, H x W x count."""
    decode(data, path)  # This refuses a file that is too large.
    found, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if not found or len(pages) != count or len({(page.shape, page.dtype) for page in pages}) != 1 or pages[0].ndim != 2:
        raise DataError(f"image '{path}': its {count} pages are not single channels of one size: replace it")
    return np.dstack(pages)


def _load(data: bytes, path: Path) -> np.ndarray:
    """Return the array of a ``.npy``, whose header is checked before memory is taken: it can claim any size."""
    try:
        file = BytesIO(data)
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](file)
        if dtype.hasobject or len(shape) not in (2, 3) or 0 in shape:
            raise DataError(f"image '{path}' must hold one array, H x W x C or H x W, of uint8 or uint16")
        if shape[0] * shape[1] > MAX_PIXELS or np.prod(shape, dtype=object) * dtype.itemsize > _LARGEST:
            raise DataError(f"image '{path}' is too large: cut it into tiles")
        return np.load(BytesIO(data), allow_pickle=False)
    except DataError:
        raise
    except Exception:  # What numpy raises depends on where the damage is.
        raise DataError(f"image '{path}' is damaged, or no .npy: replace it") from None


def _turn_upright(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """Return an image as it is to be looked at, by the orientation (1 to 8) among its metadata."""
    try:
        with Image.open(BytesIO(data)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except PIL_ERRORS:
        return pixels  # OpenCV could read the pixels.
    return _turned(pixels, orientation)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image as it is to be looked at, by an orientation from 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
