"""The training slices of the ISBI 2012 electron microscopy segmentation challenge.

Thirty slices of 512 x 512 pixels of the *Drosophila* larva's ventral nerve cord (Arganda-Carreras et al., *Frontiers
in Neuroanatomy* 9:142, 2015), as ``images/0.png`` to ``images/29.png`` and likewise ``labels``: 255 inside a cell,
0 on a membrane.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.core.errors import DataError
from fcnlab.data.dataset import Dataset, Sample, require_split
from fcnlab.data.decode import read_file
from fcnlab.data.digests import digest, digest_of
from fcnlab.data.image_files import Page, count_images, read
from fcnlab.data.image_folder import PairedFiles
from fcnlab.data.labelled_files import LabelValues, root_folder

if TYPE_CHECKING:
    from fcnlab.config.schema import Isbi2012Config

NUM_SLICES = 30
NUM_TRAIN = 24

VOLUME = "train-volume.tif"
LABELS = "train-labels.tif"


def isbi2012(config: Isbi2012Config, split: str) -> Dataset:
    """Open a split of ``dataset.root``: from the challenge's TIFF volumes if they are there, else from folders of PNGs.

    Raises:
        DataError: As `Isbi2012` and `Isbi2012Volume` do.
    """
    volumes = (root_folder(config) / VOLUME).is_file()
    return Isbi2012Volume(config, split) if volumes else Isbi2012(config, split)


class Isbi2012(PairedFiles):
    """`PairedFiles` whose slices 0 to 23 are for training and 24 to 29 for validation, unless lists say otherwise.

    Neighbouring slices are alike, so that a random split would flatter the validation.

    Args:
        config: Where the files are, and what their labels mean.
        split: "train" or "val".

    Raises:
        DataError: As `PairedFiles` does, and if the stems are not 0 to 29.
    """

    def _split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        numbers = [int(stem) if stem.isdecimal() else None for stem in stems]
        if numbers != list(range(NUM_SLICES)):
            raise DataError(
                f"dataset.root '{root}' is not the ISBI 2012 training set: its {len(stems)} images must be named 0 to "
                f"{NUM_SLICES - 1}; use dataset=folder for other data"
            )
        return super()._split(stems, root)

    def _default_split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        return {"train": set(stems[:NUM_TRAIN]), "val": set(stems[NUM_TRAIN:])}


class Isbi2012Volume(Dataset):
    """The challenge's own files, ``train-volume.tif`` and ``train-labels.tif``, with 30 pages each.

    Args:
        config: Where the files are, and what their labels mean.
        split: "train" or "val".

    Raises:
        DataError: If a file is missing or does not have 30 pages, or lists are given, which are for folders.
    """

    def __init__(self, config: Isbi2012Config, split: str) -> None:
        require_split(split)
        root = root_folder(config)
        self._volume, self._label_volume = root / VOLUME, root / LABELS
        for path in (self._volume, self._label_volume):
            pages = count_images(path, 3, 8) if path.is_file() else 0
            if pages != NUM_SLICES:
                raise DataError(f"'{path}' has {pages} pages where the ISBI 2012 training set has {NUM_SLICES}")
        if config.train_list or config.val_list:
            raise DataError("dataset.train_list and dataset.val_list are for folders of slices, not for TIFF volumes")
        self._values = LabelValues(config, config.label_values)
        self._numbers = range(NUM_TRAIN) if split == "train" else range(NUM_TRAIN, NUM_SLICES)
        self._source = f"{config.name} {root.resolve()}"

    @property
    def names(self) -> list[str]:
        """The numbers of the slices."""
        return [str(number) for number in self._numbers]

    @property
    def source(self) -> str:
        """The kind of data set and its folder's absolute path."""
        return self._source

    def __getitem__(self, index: int) -> Sample:
        number = self._numbers[index]
        image = read(Page(self._volume, number))
        values = read(Page(self._label_volume, number))[..., 0]
        if values.shape != image.shape[:2]:
            raise DataError(f"page {number} of '{self._label_volume}' does not have its image's size")
        return Sample(image, self._values.to_classes(values, self._label_volume), str(number))

    def fingerprint(self) -> str:
        """Return a digest of both files, the slices' numbers and what their labels mean."""
        files = [digest(read_file(path, "volume")) for path in (self._volume, self._label_volume)]
        return digest_of([self._values.meaning, self.names, files])
