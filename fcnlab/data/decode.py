"""Image and label files, decoded."""

from __future__ import annotations

import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fcnlab.core import environment
from fcnlab.core.errors import DataError

MAX_PIXELS = environment.MAX_PIXELS
"""Height times width of the largest image or label that is decoded, such as 16384 x 8192: a small file can claim a size
that no memory holds."""

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""What counts as an image or label file, in lower case."""

_ORIENTATION = 0x0112  # number of the EXIF tag
_DEFLATE = 1032  # bytes that a byte of a PNG can stand for, at most
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # by the type of colour; of the other types, one

# PIL warns at two thirds of our limit. For the whole process: filters of a block would not be safe with threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""What counts as a video, in lower case."""


def read_image(path: Path, *, upright: bool = False) -> np.ndarray:
    """Decode an image.

    Grey is replicated to three channels, transparency dropped, and 16 bits a channel scaled to 8.

    Args:
        path: The file; its name may have any letters.
        upright: Turn the image as its metadata (EXIF) say. A training image with a label is not turned, since the label
            is not.

    Returns:
        H x W x 3, uint8, RGB.

    Raises:
        DataError: If the file cannot be read, is truncated, has more than `MAX_PIXELS`, or pixels that are
            neither 8 nor 16 bits.
    """
    data = read_file(path, "image")
    pixels = decode(data, path, "replace it" if upright else "replace it, or remove it and its label")
    tiff = data[:2] in (b"II", b"MM")
    if tiff and pixels.dtype == np.uint8 and pixels.shape[2:] == (4,):
        # OpenCV multiplies an 8-bit TIFF's colours by its transparency.
        with Image.open(BytesIO(data)) as image:
            pixels = np.array(image.convert("RGB"))
            return _turned(pixels, data) if upright else pixels
    pixels = _rgb(pixels, path)
    return _turned(pixels, data) if upright and not tiff else pixels


def decode(data: bytes, path: Path, remedy: str = "replace it") -> np.ndarray:
    """Decode an image's bytes as they are.

    Args:
        data: What the file holds.
        path: What errors call it.
        remedy: What to do about a damaged one.

    Returns:
        H x W or H x W x C, of the file's own type, with colours in OpenCV's order: blue, green, red.

    Raises:
        DataError: If the file is truncated, cannot be decoded or has more than `MAX_PIXELS`.
    """
    _check_size(data, path, "image")
    pixels = None
    if data and not _truncated(data):
        with suppress(cv2.error):
            # Decoded from memory: cv2.imread cannot open every Unicode path on every system.
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"image '{path}' is damaged or truncated: {remedy}")
    return pixels


def count_pages(path: Path) -> int:
    """How many images a TIFF holds; 0 if it is damaged."""
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)  # it would tell the terminal of a damaged file
    try:
        return cv2.imcount(str(path))
    finally:
        cv2.setLogLevel(level)


def read_page(path: Path, page: int) -> np.ndarray:
    """Decode one image of a TIFF with several, as `read_image` does.

    Args:
        path: The file.
        page: From 0.

    Raises:
        DataError: As `read_image` does.
    """
    pixels = decode_page(path, page)
    if pixels.dtype == np.uint8 and pixels.shape[2:] == (4,):  # as above
        with Image.open(path) as image:
            image.seek(page)
            return np.array(image.convert("RGB"))
    return _rgb(pixels, path)


def decode_page(path: Path, page: int) -> np.ndarray:
    """Decode one image of a TIFF with several, as `decode` does.

    Raises:
        DataError: If it is damaged or too large.
    """
    try:
        found, pages = cv2.imreadmulti(str(path), page, 1, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error:  # such as one of more than MAX_PIXELS
        found = False
    if not found:
        raise DataError(f"image '{path}': page {page} is damaged or truncated: replace it")
    return pages[0]


def _rgb(pixels: np.ndarray, path: Path) -> np.ndarray:
    """What OpenCV decoded, as H x W x 3, uint8, RGB."""
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    if pixels.dtype != np.uint8:
        raise DataError(f"image '{path}' has {pixels.dtype} pixels: convert it to 8 or 16 bits")
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] not in (3, 4):
        raise DataError(f"image '{path}' has {pixels.shape[2]} channels: convert it to grey or RGB")
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def read_label(path: Path, *, white: int) -> np.ndarray:
    """Decode a label without changing a value; a palette image yields its indices.

    Args:
        path: The file; its name may have any letters.
        white: What the bright pixels of a 1-bit image stand for; the others are 0.

    Returns:
        H x W, uint8, or a wider integer type if the file has one.

    Raises:
        DataError: If the file cannot be read or is truncated, or if it has more than `MAX_PIXELS` or several channels.
    """
    data = read_file(path, "label")
    _check_size(data, path, "label")
    try:
        # Not OpenCV: it turns a palette's indices into colours.
        with Image.open(BytesIO(data)) as image:
            mode = image.mode
            values = np.asarray(image) if mode in _LABEL_MODES else None
        damaged = _truncated(data)
    # What PIL raises for a damaged file depends on its format and on where the damage is.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        damaged = True
    if damaged:
        raise DataError(f"label '{path}' is damaged or truncated: replace it, or remove it and its image")
    if values is None:
        raise DataError(
            f"label '{path}' is a colour image (mode {mode}): save labels as single-channel or palette PNG whose pixel "
            "values are classes"
        )
    return values * np.uint8(white) if mode == "1" else values


def read_file(path: Path, kind: str) -> bytes:
    """A file's content, as it is stored.

    Raises:
        DataError: If it cannot be read; the text calls it a ``kind``, "image" or "label".
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {kind} '{path}': {error.strerror or error}") from None


def _turned(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """An image as it is to be looked at, by the orientation (1 to 8) among its metadata."""
    try:
        with Image.open(BytesIO(data)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return pixels  # OpenCV could read the pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _check_size(data: bytes, path: Path, kind: str) -> None:
    """Refuse what is too large by the file's own account, before any of it is decoded."""
    held = None  # pixels that the bytes can stand for
    if data.startswith(b"\x89PNG"):  # by hand: OpenCV reads some that PIL does not open
        width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
        depth, colour = data[24:26] if len(data) >= 26 else (1, 0)
        held = 8 * _DEFLATE * len(data) // max(1, depth * _PNG_CHANNELS.get(colour, 1))
        size = f"{width} x {height}"
    else:
        try:
            with Image.open(BytesIO(data)) as image:
                width, height = image.size
                size = f"{width} x {height}"
        except Image.DecompressionBombError:  # above twice PIL's limit, which is above ours
            width, height, size = MAX_PIXELS, 2, "far more"
        except Exception:  # whatever PIL raises for what it cannot open; OpenCV has the same limit: see environment.py
            return
    if width * height > MAX_PIXELS:
        raise DataError(f"{kind} '{path}' has {size} pixels, and at most {MAX_PIXELS:,} are read: cut it into tiles")
    if held is not None and width * height > held:
        raise DataError(f"{kind} '{path}' is damaged: its {len(data)} bytes cannot hold {size} pixels")


def _truncated(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end, which OpenCV replaces by grey without an error.

    To be asked before OpenCV decodes it: for a part of a PNG that claims 4 GiB it takes 4 GiB, whatever the file holds.
    """
    if data.startswith(b"\x89PNG"):
        start = 8
        while start + 12 <= len(data):  # length, name, content, checksum
            name, start = data[start + 4 : start + 8], start + 12 + int.from_bytes(data[start : start + 4], "big")
            if name == b"IEND":
                return start > len(data)
        return True
    if data.startswith(b"\xff\xd8"):
        # An embedded thumbnail has an end of its own, but that comes before the last start of a scan.
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return False
