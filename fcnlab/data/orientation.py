"""Images that their metadata say to turn, as a camera's that was held upright: viewers and annotation tools turn them.

A label may have been drawn on the image as a viewer shows it or on the pixels as they are stored. Where only one of the
two has the label's size, that one is meant. Where both have, the whole data set has to say.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fcnlab.core.errors import DataError
from fcnlab.data.decode import PIL_ERRORS

log = logging.getLogger(__name__)

ORIENTATION = 0x0112
"""The number of the tag in EXIF and in a TIFF."""

_MARKS = (b"Exif", b"eXIf", b"EXIF", b"exif", b"Orientation")  # without one of these, no metadata say anything
_SWAPS = (5, 6, 7, 8)  # the orientations that exchange width and height


def orientation_of(data: bytes) -> int:
    """Return the orientation, 1 to 8, that a file's metadata state; 1, which turns nothing, if there is none."""
    if not any(mark in data for mark in _MARKS):
        return 1
    try:
        with Image.open(BytesIO(data)) as image:
            found = image.getexif().get(ORIENTATION, 1)
    except PIL_ERRORS:
        return 1  # OpenCV could read the pixels.
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image, H x W or H x W x C, as it is to be looked at, by an orientation from 1 to 8."""
    if orientation in _SWAPS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the height and width of an image that is turned, from those of its stored pixels."""
    return size[::-1] if orientation in _SWAPS else size


class Evidence:
    """What the sizes of labels say of the images of a data set that their metadata say to turn.

    Attributes:
        turned: The images whose labels fit them only when they are turned.
        stored: The images whose labels fit only the stored pixels.
        unclear: The images whose labels fit both ways, or have no size of their own.
    """

    def __init__(self) -> None:
        self.turned: list[str] = []
        self.stored: list[str] = []
        self.unclear: list[str] = []

    def add(self, name: str, size: tuple[int, int], orientation: int, label: tuple[int, int] | None) -> None:
        """Add an image.

        Args:
            name: What a message calls it.
            size: The height and width of its stored pixels.
            orientation: Its orientation.
            label: The height and width of its label; None if that has none.
        """
        if orientation == 1:
            return
        shown = turned_size(size, orientation)
        if label is None or (label == size and label == shown):
            self.unclear.append(name)
        elif label == shown:
            self.turned.append(name)
        elif label == size:
            self.stored.append(name)

    def decide(self, key: str) -> bool | None:
        """Return whether the images are turned for their labels; None if each label's size says it, differently.

        Args:
            key: The configuration key that settles it.

        Raises:
            DataError: If some labels fit both ways, and others fit the stored pixels alone.
        """
        if not (self.turned or self.stored or self.unclear):
            return None
        if self.unclear and self.stored:
            raise DataError(
                f"image '{self.unclear[0]}' is to be turned by its metadata (EXIF), and its label fits it turned and "
                f"as it is stored, while the label of '{self.stored[0]}' fits the stored pixels alone: say with "
                f"{key}=false that labels were drawn on stored pixels, or with {key}=true on turned images"
            )
        if self.unclear and not self.turned:
            log.warning(
                "%d images are turned as their metadata (EXIF) say, such as '%s'; whether their labels were drawn so "
                "cannot be told by their sizes: look at pictures of them, and set %s=false if they were not",
                len(self.unclear),
                self.unclear[0],
                key,
            )
        if self.turned and self.stored:
            return None
        return not self.stored


class Turning:
    """How the images of a data set are turned for their labels.

    Args:
        declared: Whether they are turned as their metadata say; None leaves it to the sizes of the labels.
        evidence: Looks at the whole data set; it is called only where a label fits both ways.
        key: The configuration key of ``declared``.

    Attributes:
        declared: See above.
    """

    def __init__(self, declared: bool | None, evidence: Callable[[], Evidence], key: str) -> None:
        self.declared = declared
        self._evidence, self._key = evidence, key
        self._lock = threading.Lock()
        self._answers: list[bool] = []

    def fitted(self, pixels: np.ndarray, orientation: int, label: tuple[int, int]) -> np.ndarray:
        """Return an image as its label, of a given height and width, was drawn on it.

        Args:
            pixels: The stored pixels, H x W x C.
            orientation: What the metadata say, from 1 to 8.
            label: The height and width of the label.

        Raises:
            DataError: If that cannot be told.
        """
        if orientation == 1 or self.declared is False:
            return pixels
        shown = turned_size(pixels.shape[:2], orientation)
        if self.declared is None and label == pixels.shape[:2] and (label != shown or not self._turns()):
            return pixels
        return turned(pixels, orientation)

    def _turns(self) -> bool:
        """Whether an image is turned whose label fits it both ways, by the labels of all the others."""
        with self._lock:
            if not self._answers:
                self._answers.append(self._evidence().decide(self._key) is not False)
            return self._answers[0]


def stated_size(source: Path | BytesIO) -> tuple[tuple[int, int], int] | None:
    """Return the height and width of a file's stored pixels and its orientation, without decoding it.

    Args:
        source: The file, or its content.

    Returns:
        None for a file that PIL does not open, which is not turned either.
    """
    try:
        with Image.open(source) as image:
            if image.format == "TIFF":  # A TIFF's own decoder turns it.
                return None
            found = image.getexif().get(ORIENTATION, 1)
            return (image.height, image.width), found if isinstance(found, int) and 1 <= found <= 8 else 1
    except PIL_ERRORS:
        return None
