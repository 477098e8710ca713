"""Images without labels, for prediction: from a file, a folder, a pattern, the pages of a TIFF or a video's frames."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data import image_files
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.stacks import page_names

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""The extensions of videos, in lower case."""


class UnlabelledImage(NamedTuple):
    """One image that is yet to be decoded.

    Attributes:
        name: A unique name without an extension and with ``/`` between folders, as ``a/b``, or ``stack-0003`` for an
            image of a file that holds several.
        read: A function that decodes the image, H x W x C uint8 or uint16, RGB unless the network takes other channels.
            The frames of a video must be decoded in their order, each at most once.
        path: The file that it is in.
    """

    name: str
    read: Callable[[], np.ndarray]
    path: Path = Path()


class UnlabelledFile(NamedTuple):
    """A file with one image or several.

    Attributes:
        path: The file.
        name: The name of its image, or what the names of its images begin with.
    """

    path: Path
    name: str

    @property
    def whole_name(self) -> str:
        """The name with the file's extension, by which it differs from every other file's."""
        return self.name if self.name.endswith(self.path.suffix) else f"{self.name}{self.path.suffix}"

    def images(self, channels: int = 3, bits: int = 8, value_range: Sequence[int] = ()) -> list[UnlabelledImage]:
        """Return the images in the file.

        Args:
            channels: The number of channels of an image; a TIFF with as many pages may be one image.
            bits: The bits of a channel.
            value_range: The lowest and the highest value of images of 16 bits; see `fcnlab.data.image_files.read`.

        Raises:
            DataError: If it is a video or a TIFF that cannot be opened.
        """
        if self.path.suffix.lower() in VIDEO_EXTENSIONS:
            video = _Video(self.path)
            return _numbered(self.name, video.frames, lambda frame: partial(video.read, frame))
        count = image_files.count_images(self.path, channels, bits)
        if count > 1:
            pages = [image_files.Page(self.path, number) for number in range(count)]
            kind = (channels, bits, value_range)
            return _numbered(self.name, count, lambda number: partial(image_files.read, pages[number], *kind))
        return [UnlabelledImage(self.name, partial(image_files.read, self.path, channels, bits, value_range))]


def find(given: str, without: Path | None = None) -> list[UnlabelledFile]:
    """Return the files that a user means.

    Args:
        given: A file; a folder, all of whose images are taken, also those in folders below; or a pattern with ``*``,
            ``?`` or ``**``. Files that a folder or pattern finds are left out if their extension is not that of an
            image or, for a pattern, a video.
        without: A folder that is left out, such as the output's.

    Returns:
        The files, sorted by path. A file's name is its path within the folder, without the extension unless another
        file would have the same name.

    Raises:
        DataError: If there is none.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return [UnlabelledFile(path, path.stem)]
    known = IMAGE_EXTENSIONS + VIDEO_EXTENSIONS
    if path.is_dir():
        root, paths = path, [found for found in path.rglob("*") if found.suffix.lower() in IMAGE_EXTENSIONS]
        kind = f"no file in it ends in {', '.join(IMAGE_EXTENSIONS)}"
    else:
        paths = [Path(found) for found in glob.glob(str(path), recursive=True)]
        if not paths:
            raise DataError(f"input={given}: there is no such file or folder, and no file that fits it as a pattern")
        paths = [found for found in paths if found.suffix.lower() in known]
        root = Path(os.path.commonpath([str(found.parent) for found in paths])) if paths else path
        kind = f"none of its files ends in {', '.join(known)}"
    hidden = without.resolve() if without is not None else None
    paths = [
        found
        for found in paths
        if found.is_file()
        and not found.name.startswith(".")
        and (hidden is None or hidden not in found.resolve().parents)
    ]
    if not paths:
        raise DataError(f"input={given}: holds no image: {kind}")
    whole = {found: found.relative_to(root).as_posix() for found in paths}
    stems = {found: found.relative_to(root).with_suffix("").as_posix() for found in paths}
    often = Counter([*stems.values(), *whole.values()])  # "a.png" is also the stem of "a.png.png"
    return [
        UnlabelledFile(found, stems[found] if often[stems[found]] == 1 else whole[found]) for found in sorted(paths)
    ]


def _numbered(name: str, count: int, reader: Callable[[int], Callable[[], np.ndarray]]) -> list[UnlabelledImage]:
    return [UnlabelledImage(numbered, reader(index)) for index, numbered in enumerate(page_names(name, count))]


class _Video:
    """The frames of a video, decoded forwards.

    Attributes:
        frames: The number of frames.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The frames are counted, which decodes no colours, because containers are often wrong about their number.
        self.frames = sum(1 for _ in self._grabbed())
        if self.frames == 0:
            raise DataError(f"video '{path}' cannot be read: is it damaged, or of a kind that OpenCV does not know?")
        self._capture: cv2.VideoCapture | None = None
        self._next = 0

    def read(self, frame: int) -> np.ndarray:
        """Decode a frame, H x W x 3 uint8 RGB; no frame before it can be decoded afterwards."""
        if self._capture is None:
            self._capture = cv2.VideoCapture(str(self._path))
        while self._next < frame and self._capture.grab():
            self._next += 1
        found, pixels = self._capture.read()
        self._next += 1
        if frame == self.frames - 1:
            self._capture.release()
        if not found:
            raise DataError(f"video '{self._path}': frame {frame} is damaged: replace the file")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def _grabbed(self) -> Iterator[bool]:
        capture = cv2.VideoCapture(str(self._path))
        try:
            while capture.grab():
                yield True
        finally:
            capture.release()
