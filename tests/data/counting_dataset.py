"""A data set that counts how often each of its samples is read."""

from __future__ import annotations

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data import Dataset, Sample


class Counting(Dataset):
    """Samples of 300 KiB each; reading the one at ``bad`` fails."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.reads = [0] * count
        self.bad = bad

    @property
    def names(self) -> list[str]:
        return [str(index) for index in range(len(self.reads))]

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        if index == self.bad:
            raise DataError(f"sample {index} is bad")
        image = np.full((256, 300, 3), index, np.uint8)
        return Sample(image, np.full((256, 300), index, np.uint8), str(index))
