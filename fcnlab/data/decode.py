"""The bytes of an image file, decoded as they are, once it is known that they are whole and not too large."""

from __future__ import annotations

import re
import struct
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fcnlab.core import environment
from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import read_bytes

MAX_PIXELS = environment.MAX_PIXELS
"""The largest height times width of an image or label that is decoded, such as 16384 x 8192: a small file can claim a
size that no memory holds."""

LARGEST_ARRAY = 2**30
"""The largest size of decoded pixels in bytes: without a limit, a few bytes of a file could claim all memory."""

JPEG_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif")
"""The extensions of JPEGs, in lower case."""

EXTENSIONS = (
    *(".png", *JPEG_EXTENSIONS, ".bmp", ".tif", ".tiff"),
    *(".webp", ".gif", ".jp2", ".pgm", ".ppm", ".pbm", ".pnm"),
)
"""The extensions of image and label files, in lower case: every reader takes these."""

PIL_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError),
    *(TypeError, LookupError, ArithmeticError, struct.error),  # of a TIFF whose tags have other types, or are missing
)
"""What PIL raises for a damaged file, which depends on the format and on where the damage is."""

_LARGEST_FILE = 4 * 2**30  # bytes
_DEFLATE = 1032  # the largest number of bytes that a byte of a PNG can stand for
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # of a JPEG, but for those among the pixels
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # by the type of colour; other types have one channel

# PIL warns at two thirds of our limit. This holds for the whole process: a filter within a block is not thread-safe.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_file(path: Path, kind: str) -> bytes:
    """Return a file's content as it is stored.

    Args:
        path: The file; its name may have any letters.
        kind: What an error calls the file, "image" or "label".

    Raises:
        DataError: If it cannot be read.
    """
    try:
        # A row of a MindRecord file reads itself.
        return read_bytes(path, _LARGEST_FILE) if isinstance(path, Path) else path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {kind} '{path}': {error.strerror or error}") from None


def decode(data: bytes, path: Path) -> np.ndarray:
    """Decode an image's bytes as they are.

    Args:
        data: The content of the file.
        path: The file, for errors.

    Returns:
        H x W or H x W x C, of the file's own type, with colours in OpenCV's order: blue, green, red.

    Raises:
        DataError: If the file is truncated, cannot be decoded or has more than `MAX_PIXELS`.
    """
    require_size(data, path, "image")
    if not data:
        raise DataError(f"image '{path}' is damaged or truncated (it is empty): replace it, or remove it")
    pixels = None
    if not is_truncated(data):
        with suppress(cv2.error):
            # Decoded from memory: cv2.imread cannot open every Unicode path on every system.
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None and data.startswith(b"GIF8"):
            pixels = _first_frame(data)
    if pixels is None:
        raise DataError(f"image '{path}' {_why_not(data)}")
    return pixels


def _first_frame(data: bytes) -> np.ndarray | None:
    """Return the first frame of a GIF, H x W x 3 in OpenCV's order, which OpenCV may not have been built to read."""
    try:
        with Image.open(BytesIO(data)) as image:
            return cv2.cvtColor(np.array(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except PIL_ERRORS:
        return None


def _why_not(data: bytes) -> str:
    """Return what is wrong with bytes that could not be decoded: damage, or a kind that is not read."""
    damaged = "is damaged or truncated: replace it, or remove it"
    try:
        with Image.open(BytesIO(data)) as image:
            kind, mode = image.format, image.mode
            image.load()
    except PIL_ERRORS:
        return damaged
    if is_truncated(data):
        return damaged
    return f"is a {kind} of a kind that is not read ({mode}): save it as a PNG"


def require_size(data: bytes, path: Path, kind: str) -> None:
    """Refuse a file that claims to be too large, before any of it is decoded.

    Args:
        data: The content of the file.
        path: The file, for errors.
        kind: What an error calls the file, "image" or "label".

    Raises:
        DataError: If it has more than `MAX_PIXELS`, or more than its bytes can hold.
    """
    capacity = None  # how many pixels the bytes can stand for
    if data.startswith(b"\x89PNG"):  # Parsed here: OpenCV reads some PNGs that PIL does not open.
        width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
        depth, colour = data[24:26] if len(data) >= 26 else (1, 0)
        capacity = 8 * _DEFLATE * len(data) // max(1, depth * _PNG_CHANNELS.get(colour, 1))
        size = f"{width} x {height}"
    else:
        try:
            with Image.open(BytesIO(data)) as image:
                width, height = image.size
                size = f"{width} x {height}"
        except Image.DecompressionBombError:  # The image has more than twice PIL's limit, which is above ours.
            width, height, size = MAX_PIXELS, 2, "far more"
        except (
            Exception
        ):  # PIL cannot open the file, whatever it raises; OpenCV has the same limit: see environment.py.
            return
    if width * height > MAX_PIXELS:
        raise DataError(f"{kind} '{path}' has {size} pixels, and at most {MAX_PIXELS:,} are read: cut it into tiles")
    if capacity is not None and width * height > capacity:
        raise DataError(f"{kind} '{path}' is damaged: its {len(data)} bytes cannot hold {size} pixels")


def is_truncated(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end, which OpenCV replaces by grey without an error.

    It must be asked before OpenCV decodes the file: for a chunk of a PNG that claims 4 GiB, OpenCV allocates 4 GiB.
    """
    if data.startswith(b"\x89PNG"):
        start = 8
        while start + 12 <= len(data):  # length, name, content, checksum
            name, start = data[start + 4 : start + 8], start + 12 + int.from_bytes(data[start : start + 4], "big")
            if name == b"IEND":
                return start > len(data)
        return True
    return data.startswith(b"\xff\xd8") and not _has_end_of_jpeg(data)


def _has_end_of_jpeg(data: bytes) -> bool:
    """Whether the first image of a JPEG has its end; what follows, such as a phone's video, may hold anything."""
    at = 2
    while True:
        found = _MARKER.search(data, at)  # Between scans, decoders look for the next marker, whatever lies before it.
        if found is None:
            return False
        at, kind = found.end(), data[found.end() - 1]
        if kind == 0xD9:
            return True
        if kind not in (0x01, 0xD8):  # These two stand alone; others begin with their length.
            at += int.from_bytes(data[at : at + 2], "big")
