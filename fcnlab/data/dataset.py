"""What a data set and its samples are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.digests import digest, digest_of
from fcnlab.data.prefetch import map_ahead

SPLITS = ("train", "val")
"""The splits that every data set has."""

TEST = "test"
"""The split that some data sets have; see `fcnlab.data.test_split`."""


class Sample(NamedTuple):
    """One image and its label.

    Attributes:
        image: H x W x C, uint8 or uint16; RGB unless the data set has other channels.
        label: H x W, uint8 class indices, with ``ignore_index`` for void.
        name: A name that is unique within the data set, such as the file's stem.
    """

    image: np.ndarray
    label: np.ndarray
    name: str

    def fingerprint(self) -> str:
        """Return a digest of the name and the pixels."""
        image, label, name = self
        return digest_of([name, image.shape, digest(image.tobytes()), digest(label.tobytes())])


Transform = Callable[[Sample, np.random.Generator], Sample]
"""A function from a sample to another one. All its randomness comes from the generator, and it does not write to the
sample's arrays."""


class Dataset(ABC):
    """A fixed, ordered set of samples. ``__getitem__`` is called from several threads at once."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The samples' names, in order."""

    @property
    def groups(self) -> list[str]:
        """The group of each sample, in order; samples of one group resemble each other, as pages of one stack do.

        By default, each sample is a group of its own.
        """
        return self.names

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return sample ``index``; its arrays must not be written to.

        Raises:
            IndexError: If there is no such sample.
            DataError: If its files are bad.
        """

    def __len__(self) -> int:
        return len(self.names)

    def label(self, index: int) -> np.ndarray:
        """Return the label of sample ``index``, H x W uint8, without its image, which may take longer to read.

        Raises:
            IndexError: If there is no such sample.
            DataError: If its files are bad.
        """
        return self[index].label

    @property
    def source(self) -> str:
        """A few words for people that say where the samples come from."""
        return type(self).__name__

    def stamp(self) -> str | None:
        """Return a cheap key that changes whenever `check` or `fingerprint` could come out differently.

        A change of the configuration or of this package's code need not change it; `fcnlab.data.cached_checks` sees to
        that.

        Returns:
            The key; None, as by default, if there is no such key. The checks are then not cached.
        """
        return None

    def check(self) -> None:
        """Read every sample once, so that bad data are found before a training starts.

        Raises:
            DataError: For the first bad sample, in order.
        """
        for _ in map_ahead(self.__getitem__, range(len(self)), workers=2, ahead=4):
            pass

    def class_pixels(self, num_classes: int) -> np.ndarray:
        """Return the number of pixels of each class in each sample, N x C int64, without those that are void.

        Raises:
            DataError: For the first bad sample, in order.
        """

        def count(index: int) -> np.ndarray:
            return np.bincount(self.label(index).ravel(), minlength=256)[:num_classes]

        counts = map_ahead(count, range(len(self)), workers=2, ahead=4)
        return np.array(list(counts), dtype=np.int64).reshape(len(self), num_classes)

    def fingerprint(self) -> str:
        """Return a digest of what the split holds, 32 hexadecimal characters, which changes if anything in it does.

        By default it is a digest of the names and pixels of all samples, which are read for it.

        Raises:
            DataError: For the first bad sample, in order.
        """
        samples = map_ahead(lambda index: self[index].fingerprint(), range(len(self)), workers=2, ahead=4)
        return digest_of(list(samples))


def require_split(split: str, splits: Sequence[str] = SPLITS) -> None:
    """Refuse a split that does not exist.

    Args:
        split: The split that is asked for.
        splits: The splits that the data set can have.

    Raises:
        DataError: If ``split`` is not one of ``splits``.
    """
    if split not in splits:
        raise DataError(f"no split '{split}': choose one of {', '.join(splits)}")
