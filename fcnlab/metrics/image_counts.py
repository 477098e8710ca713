"""The confusion matrix of each image, in a small file: what a comparison needs to draw images anew.

A difference between two networks depends on which images they were measured on. With the counts of each image, every
metric of a confusion matrix can be computed on any choice of images, without running a network again.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.core.files import replacing

_ARRAYS = ("names", "groups", "counts", "step")
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, OverflowError, RuntimeError),  # of a size that a header claims, or of a way to compress
)
_LARGEST = 2**30
"""The largest size of an array in bytes that is read; the header of a damaged file may state any."""


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """The confusion matrices of the images of one evaluation.

    Attributes:
        names: The name of each of the N images.
        groups: The group of each image. Images of one group, such as the pages of one stack, resemble each other, so
            that they are drawn together. An image that is in no group with others is a group of its own.
        counts: The numbers of pixels, N x C x C int64; rows are labels, columns predictions.
        step: The number of training steps before the evaluation.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    counts: np.ndarray
    step: int = 0

    @property
    def total(self) -> np.ndarray:
        """The confusion matrix of all images together, C x C int64."""
        return self.counts.sum(axis=0)

    def after(self, step: int) -> ImageCounts:
        """Return the same counts as those of an evaluation after this number of steps."""
        return replace(self, step=step)

    def by_group(self, groups: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
        """Return the groups in the order of their names, and the sum of the counts of each, G x C x C int64.

        Args:
            groups: The group of each image; None takes `groups`.
        """
        known, places = np.unique(np.array(self.groups if groups is None else groups, dtype=str), return_inverse=True)
        sums = np.zeros((len(known), *self.counts.shape[1:]), np.int64)
        np.add.at(sums, places, self.counts)
        return known.tolist(), sums

    def write(self, path: Path) -> None:
        """Write the counts; equal counts give equal bytes.

        Raises:
            OSError: If the disk does not take the file.
        """
        largest = int(self.counts.max(initial=0))
        small = np.min_scalar_type(largest)  # most counts are small, and a file of a few kB shall stay one
        # numpy drops zero characters from the end of a text.
        names, groups = (np.array([f"{text}." for text in texts], dtype=str) for texts in (self.names, self.groups))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, names=names, groups=groups, counts=self.counts.astype(small), step=self.step)

    @classmethod
    def read(cls, source: Path | bytes) -> ImageCounts:
        """Read what `write` wrote.

        Args:
            source: The file, or its content.

        Raises:
            DataError: If the file is missing, damaged or of another kind. Nothing in it is run.
        """
        what = "the counts of the images" if isinstance(source, bytes) else str(source)
        try:
            data = source if isinstance(source, bytes) else source.read_bytes()
            with zipfile.ZipFile(BytesIO(data)) as archive:
                if sum(item.file_size for item in archive.infolist()) > _LARGEST:
                    raise ValueError("it is larger than any that is written")
            with np.load(BytesIO(data), allow_pickle=False) as found:
                names, groups, counts, step = (found[key] for key in _ARRAYS)
            whole = cls(_texts(names), _texts(groups), _integers(counts), int(step))
        except _UNREADABLE as error:
            raise DataError(f"{what}: cannot be read as counts of images ({error})") from error
        shape = whole.counts.shape
        if len(shape) != 3 or shape[1] != shape[2] or {len(whole.names), len(whole.groups)} != {shape[0]}:
            raise DataError(f"{what}: has {len(whole.names)} names and counts of shape {shape}")
        return whole


def _texts(array: np.ndarray) -> tuple[str, ...]:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise ValueError(f"names of the type {array.dtype}")
    return tuple(text[:-1] for text in array.tolist())


def _integers(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise ValueError(f"counts of the type {array.dtype}")
    return array.astype(np.int64)
