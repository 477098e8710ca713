"""Data sets made from other data sets."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from fcnlab.data.dataset import Dataset, Sample
from fcnlab.data.digests import digest_of


class Wrapper(Dataset):
    """A data set around another one, with the same samples.

    Args:
        dataset: The data set that is wrapped.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def names(self) -> list[str]:
        return self._dataset.names

    @property
    def groups(self) -> list[str]:
        return self._dataset.groups

    @property
    def source(self) -> str:
        return self._dataset.source

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[index]

    def label(self, index: int) -> np.ndarray:
        return self._dataset.label(index)


class Subset(Wrapper):
    """Some of the samples of a data set, in its order; `check` and `fingerprint` read no others.

    Args:
        dataset: The data set whose samples are chosen from.
        indices: The places of the chosen samples in it, ascending.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        super().__init__(dataset)
        self._indices = list(indices)

    @property
    def names(self) -> list[str]:
        names = self._dataset.names
        return [names[index] for index in self._indices]

    @property
    def groups(self) -> list[str]:
        groups = self._dataset.groups
        return [groups[index] for index in self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    def label(self, index: int) -> np.ndarray:
        return self._dataset.label(self._indices[index])

    def stamp(self) -> str | None:
        stamp = self._dataset.stamp()
        return None if stamp is None else digest_of([stamp, self._indices])


class Cached(Wrapper):
    """A data set whose decoded samples stay in memory, as many as fit.

    Nothing is evicted: a training epoch visits every sample once, in random order, so that whatever is kept saves as
    much as anything else would. Samples beyond the limit are read again each time.

    Args:
        dataset: The data set whose samples are kept.
        limit_mib: The limit on the pixels that are kept, in MiB; 0 keeps nothing.
    """

    def __init__(self, dataset: Dataset, limit_mib: float) -> None:
        super().__init__(dataset)
        self._free = int(limit_mib * 2**20)
        self._kept: dict[int, Sample] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """The size of the pixels that are kept, in bytes."""
        with self._lock:
            return sum(sample.image.nbytes + sample.label.nbytes for sample in self._kept.values())

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        with self._lock:
            sample = self._kept.get(index)
        if sample is not None:
            return sample
        # The sample is read outside the lock: two threads may decode it at once, but none waits for another one's.
        sample = self._dataset[index]
        size = sample.image.nbytes + sample.label.nbytes
        with self._lock:
            if index not in self._kept and size <= self._free:
                # Every later reader shares the arrays that are kept: writing to one would change the data set.
                sample.image.setflags(write=False)
                sample.label.setflags(write=False)
                self._kept[index] = sample
                self._free -= size
        return sample

    def label(self, index: int) -> np.ndarray:
        with self._lock:
            sample = self._kept.get(index)
        return self._dataset.label(index) if sample is None else sample.label

    def stamp(self) -> str | None:
        return self._dataset.stamp()

    def check(self) -> None:
        """Let the wrapped data set check itself; if it does so by reading every sample, those that fit are kept.

        Raises:
            DataError: For the first bad sample.
        """
        if self._inherits("check"):
            super().check()
        else:
            self._dataset.check()

    def fingerprint(self) -> str:
        """Return the fingerprint of the wrapped data set; if it takes pixels, those that are kept are not read again.

        Raises:
            DataError: For the first bad sample.
        """
        return super().fingerprint() if self._inherits("fingerprint") else self._dataset.fingerprint()

    def _inherits(self, method: str) -> bool:
        """Whether the wrapped data set has `Dataset`'s own method, which only reads samples and may do so from here."""
        return getattr(type(self._dataset), method) is getattr(Dataset, method)


class Joined(Dataset):
    """Several data sets, one after the other.

    Args:
        parts: At least one data set.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = list(parts)
        self._places = [(part, index) for part in self._parts for index in range(len(part))]

    @property
    def names(self) -> list[str]:
        return [name for part in self._parts for name in part.names]

    @property
    def groups(self) -> list[str]:
        return [group for part in self._parts for group in part.groups]

    @property
    def source(self) -> str:
        return self._parts[0].source

    def __getitem__(self, index: int) -> Sample:
        part, place = self._places[index]
        return part[place]

    def check(self) -> None:
        for part in self._parts:
            part.check()

    def fingerprint(self) -> str:
        return digest_of([part.fingerprint() for part in self._parts])
