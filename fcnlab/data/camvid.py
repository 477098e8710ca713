"""CamVid in the layout of SegNet (Brostow et al. 2009; Badrinarayanan et al. 2017): 11 classes, 11 for void.

``train``, ``val`` and ``test`` hold 480 x 360 PNGs, ``trainannot``, ``valannot`` and ``testannot`` their labels. The
lists beside them, such as ``train.txt``, name an image and a label on each line, by their paths on the machine where
the lists were made; only the last two parts of a path count.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fcnlab.core.errors import DataError
from fcnlab.data.dataset import SPLITS, TEST, require_split
from fcnlab.data.decode import EXTENSIONS
from fcnlab.data.labelled_files import LabelledFiles, root_folder
from fcnlab.data.sample_lists import read_lines
from fcnlab.data.sample_names import natural_key

if TYPE_CHECKING:
    from fcnlab.config.schema import CamvidConfig


class Camvid(LabelledFiles):
    """One of CamVid's splits.

    Args:
        config: Where the files are; ``val_set`` is ``val`` or ``test``.
        split: "train", "val" or "test".

    Raises:
        DataError: If a folder or file is missing, or a list does not name images and labels.
    """

    def __init__(self, config: CamvidConfig, split: str) -> None:
        require_split(split, (*SPLITS, TEST))
        root = root_folder(config)
        chosen = config.val_set if split == "val" else split
        pairs = (_pairs_of_list if (root / f"{chosen}.txt").is_file() else _pairs_of_folder)(root, chosen)
        images = {image.stem: image for image, _ in pairs}
        if len(images) < len(pairs):
            raise DataError(f"list '{root / f'{chosen}.txt'}': names an image twice")
        labels = {image.stem: label for image, label in pairs}
        super().__init__(config, root, list(images), images, labels)

    @staticmethod
    def has_test(config: CamvidConfig) -> bool:
        """Whether the images of ``test`` are there, and the training does not validate on them."""
        root = root_folder(config)
        there = (root / f"{TEST}.txt").is_file() or (root / TEST).is_dir()
        return there and (root / f"{TEST}annot").is_dir() and config.val_set != TEST


def _pairs_of_list(root: Path, chosen: str) -> list[tuple[Path, Path]]:
    """Return the images and labels that a set's list names."""
    pairs = []
    path = root / f"{chosen}.txt"
    for number, line in enumerate(read_lines(path), start=1):
        written = line.split()
        if len(written) != 2:
            raise DataError(f"list '{path}', line {number} does not hold the path of an image and that of a label")
        places = []
        for text, kind in zip(written, ("image", "label"), strict=True):
            parts = PurePosixPath(text.replace("\\", "/")).parts[-2:]
            if len(parts) != 2 or ".." in parts:
                raise DataError(f"list '{path}', line {number}: '{text}' is no path below a folder")
            place = root.joinpath(*parts)
            if not place.is_file():
                raise DataError(f"list '{path}', line {number}: there is no {kind} '{place}'")
            places.append(place)
        pairs.append((places[0], places[1]))
    return pairs


def _pairs_of_folder(root: Path, chosen: str) -> list[tuple[Path, Path]]:
    """Return every image of a set's folder, which has no list, with its label."""
    folder, labels = root / chosen, root / f"{chosen}annot"
    for place in (folder, labels):
        if not place.is_dir():
            raise DataError(
                f"dataset.root: '{root}' has neither '{chosen}.txt' nor a folder '{place.name}': give CamVid in "
                "SegNet's layout, with train, trainannot, val and valannot"
            )
    pairs = []
    for image in sorted(folder.iterdir(), key=lambda path: natural_key(path.stem)):
        if image.suffix.lower() in EXTENSIONS and not image.name.startswith("."):
            label = labels / f"{image.stem}.png"
            if not label.is_file():
                raise DataError(f"image '{image}' has no label '{label}': add it or remove the image")
            pairs.append((image, label))
    if not pairs:
        raise DataError(f"folder '{folder}' is empty: no file ends in {', '.join(EXTENSIONS)}")
    return pairs
