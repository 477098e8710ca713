"""What a data set is, and the cache that any of them can be wrapped in."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.background import map_ahead
from fcnlab.data.fingerprint import digest, digest_of

SPLITS = ("train", "val")
"""The splits that every data set has."""


class Sample(NamedTuple):
    """One image and its label.

    Attributes:
        image: H x W x C, uint8 or uint16; RGB unless the data set has other channels.
        label: H x W, uint8 class indices, with ``ignore_index`` for void.
        name: Unique within the data set, such as the file's stem.
    """

    image: np.ndarray
    label: np.ndarray
    name: str

    def fingerprint(self) -> str:
        """A digest of the name and the pixels."""
        image, label, name = self
        return digest_of([name, image.shape, digest(image.tobytes()), digest(label.tobytes())])


Transform = Callable[[Sample, np.random.Generator], Sample]
"""From a sample to another one, with all randomness from the generator; it writes to none of the sample's arrays."""


class Dataset(ABC):
    """A fixed, ordered set of samples. ``__getitem__`` is called from several threads at once."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The samples' names, in order."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``; its arrays must not be written to.

        Raises:
            IndexError: If there is no such sample.
            DataError: If its files are bad.
        """

    def __len__(self) -> int:
        return len(self.names)

    def label(self, index: int) -> np.ndarray:
        """The label of sample ``index`` by itself, H x W uint8: for what needs no image, which may take longer to read.

        Raises:
            IndexError: If there is no such sample.
            DataError: If its files are bad.
        """
        return self[index].label

    @property
    def source(self) -> str:
        """Where the samples come from, in a few words for people."""
        return type(self).__name__

    def stamp(self) -> str | None:
        """What is another one whenever `check` or `fingerprint` may come out differently, and cheap to find.

        Returns:
            None where there is no such thing, as by default: then nothing is remembered (`fcnlab.data.remembered`).
        """
        return None

    def check(self) -> None:
        """Read every sample once, so that bad data are found before a run starts.

        Raises:
            DataError: For the first bad sample, in order.
        """
        for _ in map_ahead(self.__getitem__, range(len(self)), workers=2, ahead=4):
            pass

    def class_pixels(self, num_classes: int) -> np.ndarray:
        """Pixels of each class in each sample, N x C int64; void is not counted.

        Raises:
            DataError: For the first bad sample, in order.
        """

        def count(index: int) -> np.ndarray:
            return np.bincount(self.label(index).ravel(), minlength=256)[:num_classes]

        counts = map_ahead(count, range(len(self)), workers=2, ahead=4)
        return np.array(list(counts), dtype=np.int64).reshape(len(self), num_classes)

    def fingerprint(self) -> str:
        """A digest of what the split holds, 32 hexadecimal characters: another one if anything in it is another.

        By default it is that of all samples' names and pixels, each of which is read for it.

        Raises:
            DataError: For the first bad sample, in order.
        """
        samples = map_ahead(lambda index: self[index].fingerprint(), range(len(self)), workers=2, ahead=4)
        return digest_of(list(samples))


class Wrapper(Dataset):
    """A data set around another one, with its samples under their names.

    Args:
        dataset: What is wrapped.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def names(self) -> list[str]:
        """The samples' names, in order."""
        return self._dataset.names

    @property
    def source(self) -> str:
        """Where the wrapped data set's samples come from."""
        return self._dataset.source


class Cached(Wrapper):
    """A data set whose decoded samples stay in memory, as many as fit.

    Nothing is evicted: a training epoch visits every sample once, in random order, so that whatever is kept saves as
    much as anything else would. Samples beyond the limit are read anew each time.

    Args:
        dataset: What to keep.
        limit_mib: Limit on the pixels kept, in MiB; 0 keeps nothing.
    """

    def __init__(self, dataset: Dataset, limit_mib: float) -> None:
        super().__init__(dataset)
        self._free = int(limit_mib * 2**20)
        self._kept: dict[int, Sample] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels that are kept."""
        with self._lock:
            return sum(sample.image.nbytes + sample.label.nbytes for sample in self._kept.values())

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        with self._lock:
            sample = self._kept.get(index)
        if sample is not None:
            return sample
        # Read outside the lock: two threads may decode the same sample once, but none waits for another's.
        sample = self._dataset[index]
        size = sample.image.nbytes + sample.label.nbytes
        with self._lock:
            if index not in self._kept and size <= self._free:
                # A kept array is shared by every later reader: writing to it would change the data set.
                sample.image.setflags(write=False)
                sample.label.setflags(write=False)
                self._kept[index] = sample
                self._free -= size
        return sample

    def label(self, index: int) -> np.ndarray:
        """The label of sample ``index``, which alone is read if the sample is not kept."""
        with self._lock:
            sample = self._kept.get(index)
        return self._dataset.label(index) if sample is None else sample.label

    def stamp(self) -> str | None:
        """That of the wrapped data set."""
        return self._dataset.stamp()

    def check(self) -> None:
        """Let the wrapped data set check itself; if that is to read every sample, what fits is kept.

        Raises:
            DataError: For its first bad sample.
        """
        if self._inherits("check"):
            super().check()
        else:
            self._dataset.check()

    def fingerprint(self) -> str:
        """That of the wrapped data set; if it takes the samples' pixels, those that are kept are not read again.

        Raises:
            DataError: For its first bad sample.
        """
        return super().fingerprint() if self._inherits("fingerprint") else self._dataset.fingerprint()

    def _inherits(self, method: str) -> bool:
        """Whether the wrapped data set has `Dataset`'s own method, which reads samples and so may go through here."""
        return getattr(type(self._dataset), method) is getattr(Dataset, method)


class Joined(Dataset):
    """Several data sets, one after the other.

    Args:
        parts: At least one.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = list(parts)
        self._places = [(part, index) for part in self._parts for index in range(len(part))]

    @property
    def names(self) -> list[str]:
        """The samples' names, in order."""
        return [name for part in self._parts for name in part.names]

    @property
    def source(self) -> str:
        """Where the first one's samples come from."""
        return self._parts[0].source

    def __getitem__(self, index: int) -> Sample:
        part, place = self._places[index]
        return part[place]

    def check(self) -> None:
        """Let each check itself.

        Raises:
            DataError: For the first bad sample.
        """
        for part in self._parts:
            part.check()

    def fingerprint(self) -> str:
        """A digest of those of the parts.

        Raises:
            DataError: For the first bad sample, in order.
        """
        return digest_of([part.fingerprint() for part in self._parts])


def require_split(split: str) -> None:
    """Refuse a split that does not exist.

    Raises:
        DataError: If ``split`` is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise DataError(f"no split '{split}': choose one of {', '.join(SPLITS)}")
