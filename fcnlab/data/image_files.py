"""Files of images of any number of channels, in 8 or 16 bits."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data import decode
from fcnlab.data.channels import in_bits, is_plain, with_axis

ARRAY = ".npy"
"""An image as a numpy array, H x W x C or H x W, uint8 or uint16."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how one begins; the last two are BigTIFFs
_BGR = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
_LARGEST = 2**30  # bytes of an array: beyond it, a few bytes of a file could claim all memory


def read(path: Path, channels: int, bits: int) -> np.ndarray:
    """Decode an image as a training takes it.

    With 3 channels and 8 bits it is `decode.read_image`. Otherwise a ``.npy`` is the array that it holds, a TIFF with
    as many pages as there are to be channels has one on each, and other files are what they are. Grey is one channel or
    three equal ones, and of red, green, blue and transparency the first three are taken where three are to be.

    Args:
        path: The file.
        channels: How many there are to be.
        bits: 8, to which 16 are scaled; or 16, to which 8 are.

    Returns:
        H x W x C, uint8 or uint16.

    Raises:
        DataError: If the file is damaged, or has another number of channels or another type.
    """
    if is_plain(channels, bits) and path.suffix.lower() != ARRAY:
        return decode.read_image(path)
    return _as_expected(_decode(decode.read_file(path, "image"), path, channels), path, channels, bits)


def read_page(path: Path, page: int, channels: int, bits: int) -> np.ndarray:
    """Decode one image of a TIFF with several; see `read`.

    Args:
        path: The file.
        page: From 0.
        channels: How many there are to be.
        bits: 8 or 16.

    Raises:
        DataError: As `read` does.
    """
    if is_plain(channels, bits):
        return decode.read_page(path, page)
    pixels = _of_known_type(_in_rgb_order(decode.decode_page(path, page)), path)
    return _as_expected(pixels, path, channels, bits)


def _as_expected(pixels: np.ndarray, path: Path, channels: int, bits: int) -> np.ndarray:
    """With that many channels of that many bits."""
    pixels = with_axis(pixels)
    if channels == 1 and pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    elif channels == 3 and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif channels == 3 and pixels.shape[2] == 4:
        pixels = pixels[..., :3]
    if pixels.shape[2] != channels:
        raise DataError(
            f"image '{path}' has {pixels.shape[2]} channels where {channels} are expected: set dataset.channels to "
            "what the images have, or replace the image"
        )
    return np.ascontiguousarray(in_bits(pixels, bits))


def _decode(data: bytes, path: Path, channels: int) -> np.ndarray:
    """What a file holds, H x W or H x W x C, uint8 or uint16, colours in the order of RGB."""
    if path.suffix.lower() == ARRAY:
        return _of_known_type(_load(data, path), path)
    pixels = _decode_tiff(data, path, channels) if data.startswith(_TIFF) else None
    if pixels is None:
        pixels = _in_rgb_order(decode.decode(data, path))
    return _of_known_type(pixels, path)


def _in_rgb_order(pixels: np.ndarray) -> np.ndarray:
    """What OpenCV decoded, with red first."""
    return cv2.cvtColor(pixels, _BGR[pixels.shape[2]]) if pixels.ndim == 3 and pixels.shape[2] in _BGR else pixels


def _decode_tiff(data: bytes, path: Path, channels: int) -> np.ndarray | None:
    """Channels that OpenCV does not read as they are: on pages of their own, two, or more than three.

    It multiplies a fourth by the others, and refuses a fifth.

    Returns:
        H x W x C, or None for a TIFF that OpenCV reads.
    """
    import tifffile  # a quarter of a second, for those who need it

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it would tell the terminal of a damaged file
    try:
        with tifffile.TiffFile(BytesIO(data)) as file:
            pages = len(file.pages)
            page = file.pages[0]
            if pages == channels and pages > 1:
                return _stack(data, path, pages)
            if page.samplesperpixel in (1, 3):
                return None
            if page.imagelength * page.imagewidth > decode.MAX_PIXELS or page.nbytes > _LARGEST:
                raise DataError(f"image '{path}' is too large: cut it into tiles")
            pixels = page.asarray()
            if pixels.ndim != 3:
                raise ValueError("neither interleaved nor in planes")
            return np.moveaxis(pixels, 0, -1) if page.axes.startswith("S") else pixels
    except DataError:
        raise
    except Exception as error:  # what it raises for a damaged file depends on where the damage is
        if "imagecodecs" in str(error):
            raise DataError(
                f"image '{path}': its compression is not read with this many channels; save it uncompressed or with "
                "deflate, or pip install imagecodecs"
            ) from None
        raise DataError(f"image '{path}' is damaged or truncated: replace it") from None


def _stack(data: bytes, path: Path, count: int) -> np.ndarray:
    """Single channels on pages of one size, H x W x count."""
    decode.decode(data, path)  # refuses what is too large
    found, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if not found or len(pages) != count or len({(page.shape, page.dtype) for page in pages}) != 1 or pages[0].ndim != 2:
        raise DataError(f"image '{path}': its {count} pages are not single channels of one size: replace it")
    return np.dstack(pages)


def _load(data: bytes, path: Path) -> np.ndarray:
    """The array of a ``.npy``, looked at before it is made: a header can claim any size."""
    try:
        file = BytesIO(data)
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](file)
        if dtype.hasobject or len(shape) not in (2, 3) or 0 in shape:
            raise DataError(f"image '{path}' must hold one array, H x W x C or H x W, of uint8 or uint16")
        if shape[0] * shape[1] > decode.MAX_PIXELS or np.prod(shape, dtype=object) * dtype.itemsize > _LARGEST:
            raise DataError(f"image '{path}' is too large: cut it into tiles")
        return np.load(BytesIO(data), allow_pickle=False)
    except DataError:
        raise
    except Exception:  # as above
        raise DataError(f"image '{path}' is damaged, or no .npy: replace it") from None


def _of_known_type(pixels: np.ndarray, path: Path) -> np.ndarray:
    kind = pixels.dtype.newbyteorder("=")
    if kind not in (np.uint8, np.uint16):
        raise DataError(f"image '{path}' has {pixels.dtype} pixels: convert it to uint8 or uint16")
    return pixels.astype(kind, copy=False)
