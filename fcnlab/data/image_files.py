"""Image files, decoded to the channels and bits that are declared for a data set or a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data import tiff_files, zarr_images
from fcnlab.data.channels import in_bits, in_range, with_axis
from fcnlab.data.decode import EXTENSIONS, LARGEST_ARRAY, MAX_PIXELS, decode, read_file
from fcnlab.data.orientation import orientation_of, stated_size, turned, turned_size
from fcnlab.data.tiff_regions import Part

ARRAY = ".npy"
"""The extension of an image as a numpy array, H x W x C or H x W, uint8 or uint16."""

IMAGE_EXTENSIONS = (*EXTENSIONS, ARRAY)
"""The extensions of image files, in lower case."""

_LARGE_FILE = 2**28  # bytes: it takes long to read a larger file, whose size is looked at before

_TO_RGB = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}


class Page(NamedTuple):
    """One of the images in a TIFF, with as much of a `Path` as it takes to read it.

    Attributes:
        path: The file.
        number: The number of the image, from 0; see `fcnlab.data.tiff_files`.
    """

    path: Path
    number: int

    @property
    def suffix(self) -> str:
        """The suffix of the file."""
        return self.path.suffix

    def stat(self) -> object:
        """Return what the disk says of the file."""
        return self.path.stat()

    def read_bytes(self) -> bytes:
        """Return the content of the whole file."""
        return read_file(self.path, "image")

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return f"{self.path}, page {self.number}"


class Region(NamedTuple):
    """A rectangle of an image, with as much of a `Path` as it takes to read it.

    Attributes:
        file: The file of the image, one of the images in a TIFF, or the folder of an OME-Zarr.
        part: The rectangle.
    """

    file: Path | Page
    part: Part

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.file.path if isinstance(self.file, Page) else self.file

    @property
    def number(self) -> int | None:
        """The number of the image in its file; None for a file that has to hold a single one."""
        return self.file.number if isinstance(self.file, Page) else None

    @property
    def suffix(self) -> str:
        """The suffix of the file."""
        return self.path.suffix

    @property
    def is_tiff(self) -> bool:
        """Whether the file is a TIFF by its suffix, of which a part is read without the rest."""
        return self.suffix.lower() in tiff_files.EXTENSIONS

    def __str__(self) -> str:
        top, left, height, width = self.part
        return f"{self.file}, rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """Return what an image, H x W or H x W x C, has of the rectangle."""
        top, left, height, width = self.part
        return pixels[top : top + height, left : left + width]


def size_of(path: Path | Page, channels: int, bits: int) -> tuple[int, int]:
    """Return the height and width of an image, without decoding more of it than its format makes necessary.

    Args:
        path: The file, one of the images in a TIFF, or the folder of an OME-Zarr.
        channels: The channels that are declared, which say what the pages of a TIFF are.
        bits: The bits of a channel that are declared, likewise.

    Raises:
        DataError: If it cannot be read, or its metadata say to turn it.
    """
    if path.suffix.lower() == zarr_images.SUFFIX:
        return zarr_images.size_of(path)
    if path.suffix.lower() in tiff_files.EXTENSIONS:
        page = path if isinstance(path, Page) else None
        file = page.path if page is not None else path
        return tiff_files.size_of(file, path, channels, bits, page.number if page is not None else None)
    stated = stated_size(path) if path.suffix.lower() != ARRAY else None
    if stated is not None:
        return turned_size(*stated)
    return read_unscaled(path, channels, bits)[0].shape[:2]


def _read_region(region: Region, channels: int, bits: int) -> np.ndarray:
    """Decode a rectangle of an image, H x W x C; of a file that is no TIFF, the last whole image is remembered."""
    if region.suffix.lower() == zarr_images.SUFFIX:
        return _in_channels(zarr_images.read_part(region.path, region.part), region, channels)
    if region.is_tiff:
        pixels = tiff_files.read_part(region.path, region.part, region, channels, bits, region.number)
        return _in_channels(pixels, region, channels)
    return np.ascontiguousarray(region.of(_whole(region.path, region.path.stat().st_mtime_ns, channels, bits)))


@lru_cache(maxsize=1)
def _whole(path: Path, changed: int, channels: int, bits: int) -> np.ndarray:
    """Decode a whole image; ``changed`` is when the file was changed."""
    pixels, orientation = read_unscaled(path, channels, bits)
    if orientation != 1:
        raise DataError(f"image '{path}' is to be turned by its metadata, and tiles are cut upright: save it upright")
    return pixels


def read(path: Path | Page, channels: int = 3, bits: int = 8, value_range: Sequence[int] = ()) -> np.ndarray:
    """Decode an image, turned as its metadata say.

    A ``.npy`` is the array that it holds. What the pages of a TIFF are is said by its metadata and by ``channels``: see
    `fcnlab.data.tiff_files`. Of a GIF, the first frame is read. Where 3 channels are declared, grey is repeated, and of
    red, green, blue and transparency the first three are taken; where 1 is, three equal channels are one.

    Args:
        path: The file, whose name may have any letters, or one of the images in a TIFF.
        channels: The number of channels that is declared.
        bits: The bits of a channel, to which others are scaled: 8 or 16.
        value_range: The lowest and the highest value of images of 16 bits, which become those of ``bits``; if empty,
            their whole range does.

    Returns:
        H x W x C, uint8 or uint16, colours in the order of RGB.

    Raises:
        DataError: If the file cannot be read, is damaged or too large, or has other channels or another type.
    """
    return turned(*read_as_stored(path, channels, bits, value_range))


def read_as_stored(
    path: Path | Page, channels: int = 3, bits: int = 8, value_range: Sequence[int] = ()
) -> tuple[np.ndarray, int]:
    """Decode an image, and say how it is to be turned.

    Args:
        path: As for `read`.
        channels: As for `read`.
        bits: As for `read`.
        value_range: As for `read`.

    Returns:
        The image as `read` returns it, but not turned, and its orientation from 1 to 8. That of a TIFF is always 1:
        every reader of TIFFs turns them.

    Raises:
        DataError: As `read` does.
    """
    pixels, orientation = read_unscaled(path, channels, bits)
    return scaled(pixels, path, bits, value_range), orientation


def read_unscaled(path: Path | Page | Region, channels: int, bits: int) -> tuple[np.ndarray, int]:
    """Decode an image with the values and the depth that its file has; see `read_as_stored`.

    Args:
        path: As for `read`.
        channels: As for `read`.
        bits: The bits that are declared, which say together with the channels what the pages of a TIFF are.

    Returns:
        H x W x C, uint8 or uint16, and the orientation.

    Raises:
        DataError: As `read` does.
    """
    if isinstance(path, Region):
        return _read_region(path, channels, bits), 1
    if isinstance(path, Page):
        return _in_channels(tiff_files.read(path.path, path, channels, bits, path.number), path, channels), 1
    if _is_large_tiff(path):
        tiff_files.refuse_too_large(path)
    data = read_file(path, "image")
    if path.suffix.lower() == ARRAY:
        return _in_channels(_load(data, path), path, channels), 1
    if data.startswith(tiff_files.MAGIC):
        return _in_channels(tiff_files.read(BytesIO(data), path, channels, bits), path, channels), 1
    return _in_channels(_in_rgb_order(decode(data, path)), path, channels), orientation_of(data)


def _is_large_tiff(path: Path) -> bool:
    is_tiff = isinstance(path, Path) and path.suffix.lower() in tiff_files.EXTENSIONS and path.is_file()
    return is_tiff and path.stat().st_size > _LARGE_FILE


def scaled(pixels: np.ndarray, path: Path | Page, bits: int, value_range: Sequence[int] = ()) -> np.ndarray:
    """Return an image in the bits that are declared.

    Args:
        pixels: The image, uint8 or uint16.
        path: Its file, for an error.
        bits: The bits, 8 or 16.
        value_range: As for `read`.

    Raises:
        DataError: If a range of values is declared, which is of 16 bits, and the image has 8.
    """
    if not value_range:
        return np.ascontiguousarray(in_bits(pixels, bits))
    if pixels.dtype != np.uint16:
        raise DataError(
            f"image '{path}' has 8 bits, and value_range={list(value_range)} says what the values of 16 bits mean: "
            "leave value_range out, or convert the image"
        )
    return in_range(pixels, value_range, bits)


def count_images(path: Path, channels: int, bits: int) -> int:
    """Return how many images a file holds: 1 unless it is a TIFF; see `fcnlab.data.tiff_files`.

    Raises:
        DataError: If it is a TIFF that is damaged.
    """
    if path.suffix.lower() not in tiff_files.EXTENSIONS:
        return 1
    return tiff_files.count_images(path, path, channels, bits)


def _in_channels(pixels: np.ndarray, path: Path | Page, channels: int) -> np.ndarray:
    """Return an image, H x W or H x W x C, in the declared channels."""
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
            "what the images have (for fcnlab.prepare: channels), or replace the image"
        )
    return np.ascontiguousarray(pixels)


def _in_rgb_order(pixels: np.ndarray) -> np.ndarray:
    """Return what OpenCV decoded, with red first."""
    code = _TO_RGB.get(pixels.shape[2]) if pixels.ndim == 3 else None
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _load(data: bytes, path: Path) -> np.ndarray:
    """Return the array of a ``.npy``, whose header is checked before memory is taken: it can claim any size."""
    try:
        file = BytesIO(data)
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[version](file)
        if dtype.hasobject or len(shape) not in (2, 3) or 0 in shape:
            raise DataError(f"image '{path}' must hold one array, H x W x C or H x W, of uint8 or uint16")
        if shape[0] * shape[1] > MAX_PIXELS or np.prod(shape, dtype=object) * dtype.itemsize > LARGEST_ARRAY:
            raise DataError(f"image '{path}' is too large: cut it into tiles")
        return np.load(BytesIO(data), allow_pickle=False)
    except DataError:
        raise
    except Exception:  # What numpy raises depends on where the damage is.
        raise DataError(f"image '{path}' is damaged, or no .npy: replace it") from None
