"""TIFFs: which of their pages are images and which are the channels of one, and the pixels of a page.

ImageJ, OME and tifffile write down what the dimensions of a file are. There, C is the channels of an image, and every
other dimension (slices, times, positions) counts images. Without such metadata, each page is an image, except where the
images are declared to have as many channels as there are pages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from PIL import Image

from fcnlab.core.errors import DataError
from fcnlab.data import tiff_regions
from fcnlab.data.decode import LARGEST_ARRAY, MAX_PIXELS, PIL_ERRORS
from fcnlab.data.orientation import ORIENTATION, turned

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

EXTENSIONS = (".tif", ".tiff")
"""The extensions of TIFFs, in lower case."""

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins; the last two are BigTIFFs."""

_TO_RGB = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
_PHOTOGRAPH = (3, 8)  # the channels and bits for which grey pages without metadata are images, not channels
_PLANAR = 2  # how a TIFF says that its channels lie one after the other
_WHITE_IS_ZERO = 0  # how a TIFF says that its largest value is black
_REDUCED = 1  # the bit of a page's kind that says that it is another one in a smaller size
_DESCRIPTION = 270  # the number of the tag in which ImageJ and OME say what the dimensions are
_MOST_TAGS = 10_000
_MOST_LEVELS = 64  # No pyramid has so many pages, whose kinds are looked at.
_TYPES = (np.uint8, np.uint16)


class Layout(NamedTuple):
    """Which pages of a file make up which image.

    Attributes:
        pages: The numbers of the pages of each image, N x C; C is 1 where a page is a whole image.
        declared: Whether the file's metadata say so.
    """

    pages: np.ndarray
    declared: bool


def may_hold_several(path: Path) -> bool:
    """Whether a TIFF has more than one page, or says something of its dimensions; others need not be opened.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if not head.startswith(MAGIC):
                return False
            order = "little" if head.startswith(b"II") else "big"
            is_big = head[2:4] in (b"+\0", b"\0+")
            counts, entry, offset = (8, 20, 8) if is_big else (2, 12, 4)
            file.seek(int.from_bytes(head[8:16] if is_big else head[4:8], order))
            entries = min(int.from_bytes(file.read(counts), order), _MOST_TAGS)
            tags = file.read(entries * entry)
            following = int.from_bytes(file.read(offset), order)
    except OSError as error:
        raise DataError(f"cannot read image '{path}': {error.strerror or error}") from None
    numbers = [int.from_bytes(tags[at : at + 2], order) for at in range(0, len(tags), entry)]
    return following != 0 or _DESCRIPTION in numbers


def count_images(source: BytesIO | Path, path: Path, channels: int, bits: int) -> int:
    """Return the number of images in a TIFF.

    Args:
        source: The file's content, or the file.
        path: The file, for errors.
        channels: The channels that an image is declared to have.
        bits: The bits of a channel that are declared.

    Raises:
        DataError: If the file is damaged.
    """
    with opened(source, path) as file:
        return len(layout(file, channels, bits).pages)


def read(source: BytesIO | Path, path: Path, channels: int, bits: int, number: int | None = None) -> np.ndarray:
    """Decode an image of a TIFF, turned as its metadata say.

    Args:
        source: The file's content, or the file.
        path: The file, for errors.
        channels: As for `count_images`.
        bits: As for `count_images`.
        number: The number of the image in the file; None for a file that has to hold a single one.

    Returns:
        H x W or H x W x C, red first, of the file's own type.

    Raises:
        DataError: If the file is damaged, too large, of a kind that is not read, or holds other images.
    """
    with opened(source, path) as file:
        _require_type(file.pages[0].keyframe, path)
        pages = layout(file, channels, bits).pages
        if number is None and len(pages) > 1:
            raise DataError(
                f"image '{path}' is a stack of {len(pages)} images, and a single one is expected here: split it, or "
                "save its pages as channels (ImageJ's composite) if they are the channels of one image"
            )
        planes = []
        for found in _pages_of(file, pages, number, f"image '{path}'"):
            planes.append(_decoded(found if found is not None else file.pages[0], source, path, channels))
    if len(planes) == 1:
        return planes[0]
    if len({(plane.shape, plane.dtype) for plane in planes}) != 1 or planes[0].ndim != 2:
        raise DataError(f"image '{path}': its {len(planes)} pages are not single channels of one size: replace it")
    return np.dstack(planes)


def size_of(path: Path, shown: object, channels: int, bits: int, number: int | None = None) -> tuple[int, int]:
    """Return the height and width of an image of a TIFF, without decoding it; see `read` for the arguments.

    Raises:
        DataError: As `read_part` does.
    """
    with opened(path, shown) as file:
        [page, *_] = _pages_for_parts(file, shown, channels, bits, number)
        return tiff_regions.size_of(page, shown)


def read_part(
    path: Path, part: tiff_regions.Part, shown: object, channels: int, bits: int, number: int | None = None
) -> np.ndarray:
    """Read a part of an image of a TIFF, without reading the rest; see `read` for the other arguments.

    Args:
        path: The file.
        part: The part, which lies within the image.
        shown: What an error calls the file.
        channels: The channels that an image is declared to have.
        bits: The bits of a channel that are declared.
        number: The number of the image in the file; None for a file that has to hold a single one.

    Returns:
        H x W or H x W x C, red first, of the file's own type.

    Raises:
        DataError: As `read` does, and if parts of the page cannot be read alone.
    """
    with opened(path, shown) as file:
        pages = _pages_for_parts(file, shown, channels, bits, number)
        for page in pages:
            _require_type(page.keyframe, shown)
            tiff_regions.size_of(page, shown)
        planes = [_upright_values(tiff_regions.read_part(page, part, shown), page) for page in pages]
    if len(planes) == 1:
        return planes[0]
    if len({(plane.shape, plane.dtype) for plane in planes}) != 1 or planes[0].ndim != 2:
        raise DataError(f"image '{shown}': its {len(planes)} pages are not single channels of one size: replace it")
    return np.dstack(planes)


def read_label_part(
    path: Path, part: tiff_regions.Part, shown: object, number: int | None = None
) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Read a part of a label that is a TIFF, with its values as they are stored; see `read_part` for the arguments.

    Returns:
        H x W, uint8 or uint16, in which a page of one bit has 0 and 1, 1 being bright; the colour of each value, N x 3
        uint8, if the file has a palette; and whether its pixels have one bit.

    Raises:
        DataError: As `only_page` and `read_part` do, and if it has several channels or another type.
    """
    with opened(path, shown) as file:
        pages = _pages_for_parts(file, shown, *_PHOTOGRAPH, number)
        key = pages[0].keyframe
        if len(pages) > 1 or key.samplesperpixel != 1:
            raise DataError(
                f"label '{shown}' has several channels, and it is unclear which of them holds the classes: save that "
                "channel alone"
            )
        if key.bitspersample not in (1, 8, 16) or (key.bitspersample > 1 and key.dtype not in _TYPES):
            raise DataError(f"label '{shown}' has {key.dtype} pixels: convert it to uint8 or uint16")
        tiff_regions.size_of(pages[0], shown)
        values = tiff_regions.read_part(pages[0], part, shown)
        if key.photometric == _WHITE_IS_ZERO and key.bitspersample < 16:
            values = (1 if key.bitspersample == 1 else 255) - values.astype(np.uint8)
        colours = None if key.colormap is None else (np.asarray(key.colormap).T >> 8).astype(np.uint8)
        return values.astype(np.uint8) if key.bitspersample == 1 else values, colours, key.bitspersample == 1


def _pages_for_parts(file: TiffFile, shown: object, channels: int, bits: int, number: int | None) -> list[TiffPage]:
    """Return the pages of an image, each of which its file lists."""
    pages = layout(file, channels, bits).pages
    if number is None and len(pages) > 1:
        raise DataError(f"image '{shown}' is a stack of {len(pages)} images, and a single one is expected here")
    found = _pages_of(file, pages, number, f"image '{shown}'")
    if any(page is None for page in found):
        raise DataError(f"image '{shown}' has a page that its file does not list: save the file again")
    return found  # type: ignore[return-value]


def _upright_values(pixels: np.ndarray, page: TiffPage) -> np.ndarray:
    """Return the pixels of a page in which white is the largest value."""
    if page.keyframe.photometric == _WHITE_IS_ZERO and pixels.dtype in _TYPES:
        return np.iinfo(pixels.dtype).max - pixels
    return pixels


def only_page(source: BytesIO | Path, path: object, number: int | None = None) -> int:
    """Return which page of a TIFF is one of its images, for a reader that counts pages and knows no dimensions.

    Args:
        source: The file's content, or the file.
        path: The file, for errors.
        number: The number of the image in the file; None for a file that has to hold a single one.

    Returns:
        The number of the page, from 0.

    Raises:
        DataError: If the file is damaged or holds other images, or if the image is not a single page.
    """
    with opened(source, path) as file:
        pages = layout(file, *_PHOTOGRAPH).pages
        if number is None and len(pages) > 1:
            raise DataError(
                f"label '{path}' is a stack of {len(pages)} pages, and its image is no stack of as many: give it one "
                "page, or save the image as a stack of slices"
            )
        chosen = _pages_of(file, pages, number, f"label '{path}'")
        if len(chosen) > 1:
            raise DataError(
                f"label '{path}' has {len(chosen)} channels, each on a page of its own, and it is unclear which of "
                "them holds the classes: save that channel alone"
            )
        [page] = chosen
        if page is None or page.index is None or getattr(page, "is_virtual", False):
            raise DataError(f"label '{path}' is a page that its file does not list: save the file again, in parts")
        return page.index


def _pages_of(file: TiffFile, pages: np.ndarray, number: int | None, what: str) -> list[TiffPage | None]:
    """Return the pages that make up an image of a file; None stands for one that the file does not list.

    Args:
        file: The file.
        pages: The pages of each image; see `Layout`.
        number: The number of the image; None for the first.
        what: The name of the file, for errors.

    Raises:
        DataError: If there is no image of this number.
    """
    if number is not None and number >= len(pages):
        raise DataError(f"{what} has {len(pages)} images, so that there is none of number {number}")
    listed = file.series[0].pages if _has_axes(file) else file.pages
    return [listed[page] for page in pages[number or 0].tolist()]


def layout(file: TiffFile, channels: int, bits: int) -> Layout:
    """Return which pages make up which image; see `Layout`."""
    if _has_axes(file):
        series = file.series[0]
        leading = [(axis, length) for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
        table = np.arange(int(np.prod([length for _, length in leading], dtype=np.int64))).reshape(
            [length for _, length in leading]
        )
        at = [position for position, (axis, _) in enumerate(leading) if axis == "C"]
        if at:
            table = np.moveaxis(table, at[0], -1)
            return Layout(table.reshape(-1, table.shape[-1]), True)
        if len(table.ravel()) == channels and channels not in (1, 3):  # A grey page has not so many channels.
            return Layout(table.reshape(1, -1), True)
        return Layout(table.reshape(-1, 1), True)
    count = len(file.pages)
    numbers = range(count)
    if 1 < count <= _MOST_LEVELS:
        numbers = [number for number in numbers if not file.pages[number].subfiletype & _REDUCED] or [0]
    table = np.array(numbers)
    if len(table) == channels > 1 and (channels, bits) != _PHOTOGRAPH:
        return Layout(table.reshape(1, -1), False)
    return Layout(table.reshape(-1, 1), False)


@contextmanager
def opened(source: BytesIO | Path, path: object) -> Iterator[TiffFile]:
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
    except Exception:  # What tifffile raises for a damaged file depends on where the damage is.
        raise _damaged(path) from None


def _has_axes(file: TiffFile) -> bool:
    """Whether the metadata say what the dimensions of the first images are."""
    named = file.is_imagej or file.is_ome or any("axes" in item for item in file.shaped_metadata or ())
    if not named or not file.series:
        return False
    series = file.series[0]
    axes = series.axes
    # What is within a page is known from the page: here, only dimensions before it count.
    return axes.rstrip("S").endswith("YX") and len(series.pages) == np.prod(
        [length for axis, length in zip(axes, series.shape, strict=True) if axis not in "YXS"], dtype=np.int64
    )


def _decoded(page: TiffPage, source: BytesIO | Path, path: Path, channels: int) -> np.ndarray:
    """Return the pixels of a page, H x W or H x W x C, turned as its metadata say."""
    key = page.keyframe
    _require_size(page, path)
    _require_type(key, path)
    orientation = int(key.tags.valueof(ORIENTATION, 1))
    samples = key.samplesperpixel
    if samples == 4 and channels == 3 and key.dtype == np.uint8:
        return _with_pil(page, source, path, "RGB")  # OpenCV multiplies the colours by the transparency.
    # OpenCV leaves memory that it has not written to among planes of 16 bits, multiplies a fourth channel by the
    # others, refuses a fifth, inverts white-is-zero in 8 bits alone, and turns some files once more than others.
    plain = (
        samples in (1, 3)
        and not (key.planarconfig == _PLANAR and samples > 1 and key.bitspersample > 8)
        and key.photometric != _WHITE_IS_ZERO
        and orientation == 1
        and page.index is not None
        and not getattr(page, "is_virtual", False)
    )
    pixels = _with_opencv(page.index, source) if plain else None
    if pixels is None:
        pixels = _with_tifffile(page, path, optional=samples in (1, 3, 4))
    if pixels is None:
        pixels = _with_pil(page, source, path, None)
        if key.photometric == _WHITE_IS_ZERO and pixels.dtype == np.uint16:
            pixels = 65535 - pixels  # PIL inverts 8 bits alone.
    return pixels


def refuse_too_large(path: Path) -> None:
    """Refuse a TIFF whose first page is too large, before its content is read: it may be larger than memory.

    Raises:
        DataError: If it is, or the file is damaged.
    """
    with opened(path, path) as file:
        _require_size(file.pages[0], path)


def _require_size(page: TiffPage, path: object) -> None:
    """Refuse a page that is not decoded as a whole."""
    key = page.keyframe
    if key.imagelength * key.imagewidth > MAX_PIXELS or key.nbytes > LARGEST_ARRAY:
        raise DataError(f"image '{path}' is too large: cut it into tiles, as fcnlab.prepare does with tile=2048")


def _require_type(page: TiffPage, path: object) -> None:
    """Refuse a page whose pixels have a type that would have to be converted, such as float32."""
    if page.dtype not in _TYPES and page.bitspersample >= 8:
        kind = f"{page.dtype} pixels" if page.dtype is not None else f"{page.bitspersample} bits"
        raise DataError(f"image '{path}' has {kind}: convert it to uint8 or uint16")


def _with_opencv(number: int, source: BytesIO | Path) -> np.ndarray | None:
    """Decode a page; None where OpenCV cannot."""
    logs = cv2 if hasattr(cv2, "getLogLevel") else cv2.utils.logging  # where OpenCV 4.12 and newer have it
    level = logs.getLogLevel()
    logs.setLogLevel(0)  # OpenCV would write to the terminal that a file is damaged.
    try:
        if isinstance(source, BytesIO):
            data = np.frombuffer(source.getbuffer(), np.uint8)
            if number == 0:
                pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            else:
                found, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(number, number + 1))
                pixels = pages[0] if found else None
        else:
            found, pages = cv2.imreadmulti(str(source), number, 1, flags=cv2.IMREAD_UNCHANGED)
            pixels = pages[0] if found else None
    except cv2.error:
        return None
    finally:
        logs.setLogLevel(level)
    code = _TO_RGB.get(pixels.shape[2]) if pixels is not None and pixels.ndim == 3 else None
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _with_tifffile(page: TiffPage, path: Path, *, optional: bool) -> np.ndarray | None:
    """Decode a page; None where its compression needs another reader, if there is one."""
    key = page.keyframe
    try:
        pixels = page.asarray()
    except Exception as error:  # What tifffile raises depends on where the damage is.
        if not isinstance(error, ImportError) and "imagecodecs" not in str(error):
            raise _damaged(path) from None
        if optional and key.planarconfig != _PLANAR:
            return None
        raise DataError(
            f"image '{path}': its compression ({_name(key.compression)}) is not read with this many channels; save it "
            "uncompressed or with deflate, or pip install imagecodecs"
        ) from None
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1) if key.axes.startswith("S") else pixels
    elif pixels.ndim != 2:
        raise DataError(f"image '{path}' has {pixels.ndim} dimensions on one page, and two or three are read")
    if key.photometric == _WHITE_IS_ZERO and pixels.dtype in _TYPES:
        pixels = np.iinfo(pixels.dtype).max - pixels
    orientation = int(key.tags.valueof(ORIENTATION, 1))
    return turned(pixels, orientation)


def _with_pil(page: TiffPage, source: BytesIO | Path, path: Path, mode: str | None) -> np.ndarray:
    """Decode a page with PIL, which turns it; in a mode of PIL's, or as it is."""
    try:
        if isinstance(source, BytesIO):
            source.seek(0)
        with Image.open(source) as image:
            image.seek(page.index or 0)
            image.load()
            if mode is None and image.mode not in ("L", "RGB", "RGBA", "I;16", "I;16B"):
                image = image.convert("RGB")  # from a palette, CMYK or YCbCr
            pixels = np.array(image if mode is None else image.convert(mode))
    except PIL_ERRORS:
        compression = _name(page.keyframe.compression)
        with suppress(ValueError):
            if page.keyframe.compression != 1:
                raise DataError(
                    f"image '{path}' cannot be decoded: it is damaged, or its compression ({compression}) is not read "
                    "here; save it uncompressed or with deflate"
                ) from None
        raise _damaged(path) from None
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _name(compression: object) -> str:
    return getattr(compression, "name", str(compression))


def _damaged(path: object) -> DataError:
    return DataError(f"image '{path}' is damaged or truncated: replace it, or remove it")
