"""A generated data set, with a key for the width of its stripes."""

from dataclasses import dataclass

import numpy as np

from fcnlab.config.schema import DatasetConfig, Role, key
from fcnlab.data import Dataset, Sample


@dataclass
class StripesConfig(DatasetConfig):
    """The keys of the data set, in a derived class, with roles and a range."""

    name: str = "stripes"
    wide: int = key(8, Role.READS, minimum=2, maximum=32)
    images: int = key(4, Role.READS, minimum=1)
    scratch: str = key("/tmp", Role.MACHINE)  # Nothing reads it: it shows the role of what belongs to a machine.


class Stripes(Dataset):
    """Grey images of vertical stripes, which are the classes."""

    Config = StripesConfig

    def __init__(self, config: StripesConfig, split: str) -> None:
        self._wide = config.wide
        self._names = [f"{split}-{index}" for index in range(config.images)]

    @property
    def names(self) -> list[str]:
        return self._names

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng(sum(map(ord, self._names[index])))
        label = np.broadcast_to(np.arange(64) // self._wide % 2, (64, 64)).astype(np.uint8)
        image = (label[..., None] * 120 + generator.integers(0, 60, (64, 64, 3))).astype(np.uint8)
        return Sample(image, label, self._names[index])
