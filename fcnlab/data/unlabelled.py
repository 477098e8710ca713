"""Images without labels, wherever they are: a file, a folder, a pattern, the pages of a TIFF, the frames of a video."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.channels import is_plain
from fcnlab.data.decode import EXTENSIONS, VIDEO_EXTENSIONS, count_pages, read_image
from fcnlab.data.image_files import ARRAY, read, read_page

TIFF = (".tif", ".tiff")


class Picture(NamedTuple):
    """One image to be.

    Attributes:
        name: Unique, without an extension, with ``/`` between folders: ``a/b``; ``stack-0003`` of a file with several.
        read: Decodes it, H x W x C uint8 or uint16, RGB unless asked for other channels; those of one video in the
            order of their frames, each at most once.
    """

    name: str
    read: Callable[[], np.ndarray]


class Source(NamedTuple):
    """One file.

    Attributes:
        path: Where it is.
        name: Its images' names, or what they begin with.
    """

    path: Path
    name: str

    def pictures(self, channels: int = 3, bits: int = 8) -> list[Picture]:
        """The images in the file.

        Args:
            channels: Of an image; a TIFF with as many pages is one image.
            bits: Of a channel.

        Raises:
            DataError: If it is a video that cannot be opened.
        """
        suffix = self.path.suffix.lower()
        if suffix in VIDEO_EXTENSIONS:
            video = _Video(self.path)
            return _numbered(self.name, video.frames, lambda frame: partial(video.read, frame))
        pages = count_pages(self.path) if suffix in TIFF else 1
        plain = is_plain(channels, bits)
        if pages > 1 and (plain or pages != channels):
            return _numbered(self.name, pages, lambda page: partial(read_page, self.path, page, channels, bits))
        if suffix == ARRAY or not plain:
            return [Picture(self.name, partial(read, self.path, channels, bits))]
        return [Picture(self.name, partial(read_image, self.path, upright=True))]


def find(given: str, without: Path | None = None) -> list[Source]:
    """The files that a user means.

    Args:
        given: A file; a folder, all of whose images are taken, also those in folders below; or a pattern with ``*``,
            ``?`` or ``**``. Of a folder's or pattern's files, those whose extension is of no image or video are left
            out.
        without: A folder that is left out, such as the output's.

    Returns:
        Sorted by path. A file's name is its path within the folder, without the extension unless another file would
        have the same name.

    Raises:
        DataError: If there is none.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return [Source(path, path.stem)]
    pictures = (*EXTENSIONS, ARRAY)
    known = pictures + VIDEO_EXTENSIONS
    if path.is_dir():
        root, paths = path, [found for found in path.rglob("*") if found.suffix.lower() in pictures]
        kind = f"no file in it ends in {', '.join(pictures)}"
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
    stems = {found: found.relative_to(root).with_suffix("").as_posix() for found in paths}
    often = Counter(stems.values())
    return [
        Source(found, stems[found] if often[stems[found]] == 1 else found.relative_to(root).as_posix())
        for found in sorted(paths)
    ]


def _numbered(name: str, count: int, reader: Callable[[int], Callable[[], np.ndarray]]) -> list[Picture]:
    digits = max(4, len(str(count - 1)))  # so that names sort as the images do
    return [Picture(f"{name}-{index:0{digits}d}", reader(index)) for index in range(count)]


class _Video:
    """The frames of a video, read forwards."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Containers are often wrong about it, so that the frames are counted; that decodes no colours.
        self.frames = sum(1 for _ in self._grabbed())
        if self.frames == 0:
            raise DataError(f"video '{path}' cannot be read: is it damaged, or of a kind that OpenCV does not know?")
        self._capture: cv2.VideoCapture | None = None
        self._next = 0

    def read(self, frame: int) -> np.ndarray:
        """Decode a frame; none before it can be read afterwards."""
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
