"""The training slices of the ISBI 2012 electron microscopy segmentation challenge.

Thirty slices of 512 x 512 pixels of the *Drosophila* larva's ventral nerve cord (Arganda-Carreras et al., *Frontiers
in Neuroanatomy* 9:142, 2015), as ``images/0.png`` to ``images/29.png`` and likewise ``labels``: 255 inside a cell,
0 on a membrane.
"""

from __future__ import annotations

from pathlib import Path

from fcnlab.data.folder import PairedFiles
from fcnlab.errors import DataError

NUM_SLICES = 30
NUM_TRAIN = 24


class Isbi2012(PairedFiles):
    """`PairedFiles` of which slices 0 to 23 are for training and 24 to 29 for validation, unless lists say otherwise.

    Neighbouring slices are alike: a random split would flatter the validation.

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
