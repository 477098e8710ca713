"""Label files, decoded."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from fcnlab.core.errors import DataError
from fcnlab.data import tiff_files, zarr_images
from fcnlab.data.decode import MAX_PIXELS, PIL_ERRORS, is_truncated, read_file, require_size
from fcnlab.data.image_files import Page, Region
from fcnlab.data.orientation import orientation_of, turned

_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # PIL's names of single-channel and palette images
_PGM = (b"P2", b"P5")  # how a grey map begins, whose values PIL would stretch to 255


class RawLabel(NamedTuple):
    """A label as its file holds it.

    Attributes:
        values: H x W, uint8, or a wider integer type if the file has one.
        palette: The colour of each value, N x 3 uint8; None if the file has no palette.
        is_jpeg: Whether it is a JPEG, which changes values when it is saved.
        is_bilevel: Whether its pixels have one bit.
    """

    values: np.ndarray
    palette: np.ndarray | None = None
    is_jpeg: bool = False
    is_bilevel: bool = False


def read_label(path: Path | Page, *, white: int, upright: bool = True) -> np.ndarray:
    """Decode a label without changing a value; a palette image yields its indices.

    Args:
        path: The file, whose name may have any letters, or one of the pages of a TIFF.
        white: The value of the bright pixels of a 1-bit image; the others are 0.
        upright: Whether the label is turned as its own metadata say, which few labels have.

    Returns:
        H x W, uint8, or a wider integer type if the file has one.

    Raises:
        DataError: If the file cannot be read or is truncated, has more than `MAX_PIXELS`, several channels or several
            images, or is a page that consists of several channels.
    """
    return read_raw_label(path, white=white, upright=upright).values


def read_raw_label(path: Path | Page | Region, *, white: int, upright: bool = True) -> RawLabel:
    """Decode a label like `read_label`, with what its file says beside the values.

    Raises:
        DataError: As `read_label` does.
    """
    if isinstance(path, Region):
        return _read_region(path, white, upright)
    page = path.number if isinstance(path, Page) else None
    data = b"" if page is not None else read_file(path, "label")  # Of a stack, only the page is read.
    require_size(data, path, "label")
    values = palette = None
    # PIL counts the pages of the file, and a label is counted among images, which may have several pages each.
    frame = tiff_files.only_page(path.path, path, page) if page is not None else _frame(data, path)
    try:
        # OpenCV would turn a palette's indices into colours.
        with Image.open(BytesIO(data) if page is None else path.path) as image:
            mode, kind = image.mode, image.format
            if frame is not None:
                image.seek(frame)
                mode = image.mode
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"label '{path}' has more than {MAX_PIXELS:,} pixels: cut it into tiles")
            if mode in _MODES:
                values = np.asarray(image)
                colours = image.getpalette("RGB") if mode == "P" else None
                palette = None if colours is None else np.array(colours, np.uint8).reshape(-1, 3)
        damaged = is_truncated(data)
    except PIL_ERRORS:
        damaged = True
    if damaged:
        raise DataError(f"label '{path}' is damaged or truncated: replace it, or remove it and its image")
    if values is None:
        raise DataError(
            f"label '{path}' is a colour image (mode {mode}): save labels as single-channel or palette PNG whose pixel "
            "values are classes"
        )
    if data.startswith(_PGM):
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        values = values if grey is None or grey.ndim != 2 else grey
    values = values * np.uint8(white) if mode == "1" else values
    if upright and page is None and not data.startswith(tiff_files.MAGIC):  # PIL has turned a TIFF.
        values = turned(values, orientation_of(data))
    return RawLabel(values, palette, kind == "JPEG", mode == "1")


def _read_region(region: Region, white: int, upright: bool) -> RawLabel:
    """Decode a rectangle of a label; of a file that is no TIFF, the last whole label is remembered."""
    if region.suffix.lower() == zarr_images.SUFFIX:
        values = zarr_images.read_part(region.path, region.part)
        if values.ndim != 2 or values.dtype.kind not in "ui":
            raise DataError(f"label '{region}' has {values.dtype} pixels or several channels: save one of classes")
        return RawLabel(values)
    if region.is_tiff:
        values, palette, is_bilevel = tiff_files.read_label_part(region.path, region.part, region, region.number)
        return RawLabel(values * np.uint8(white) if is_bilevel else values, palette, False, is_bilevel)
    whole = _whole(region.path, region.path.stat().st_mtime_ns, white, upright)
    return whole._replace(values=np.ascontiguousarray(region.of(whole.values)))


@lru_cache(maxsize=1)
def _whole(path: Path, changed: int, white: int, upright: bool) -> RawLabel:
    """Decode a whole label; ``changed`` is when the file was changed."""
    return read_raw_label(path, white=white, upright=upright)


def _frame(data: bytes, path: Path) -> int | None:
    """Return which page of a TIFF of several pages is the label that it holds; None for a file without pages."""
    if not data.startswith(tiff_files.MAGIC):
        return None
    try:
        with Image.open(BytesIO(data)) as image:
            several = getattr(image, "n_frames", 1) > 1
    except PIL_ERRORS:
        return None  # which the caller says
    return tiff_files.only_page(BytesIO(data), path) if several else None
