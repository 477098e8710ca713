"""PASCAL VOC as it is distributed (Everingham et al., IJCV 2015), with the SBD extension and the FCN authors' protocol.

``VOCdevkit/VOC2012`` holds ``JPEGImages``, ``SegmentationClass`` (palette PNGs whose pixels are class indices, 255 for
void) and lists in ``ImageSets/Segmentation``. The Semantic Boundaries Dataset (Hariharan et al., ICCV 2011) labels more
of its images: ``dataset/cls/*.mat``, or PNGs made of them in ``SegmentationClassAug``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.dataset import require_split
from fcnlab.data.labelled_files import LabelledFiles, root_folder
from fcnlab.data.sample_lists import read_names

if TYPE_CHECKING:
    from fcnlab.config.schema import Voc2012Config

_LISTS = Path("ImageSets", "Segmentation")
_LARGEST_MAT = 64 * 2**20


class Voc2012(LabelledFiles):
    """The segmentation images of one list.

    ``train_set`` is ``train`` or ``trainval`` of VOC, or ``trainaug``: VOC's and SBD's training and validation images
    without VOC's validation images (10,582 with VOC 2012). ``val_set`` is ``val``, or ``seg11valid``: the images of
    VOC's ``val`` that SBD does not train on (736 with VOC 2011; Long et al. 2015, section 5). If there is a list file
    of that name, it decides.

    Args:
        config: Where the files are, and which lists are used.
        split: "train" or "val".

    Raises:
        DataError: If a folder, list or listed file is missing, or both splits share an image.
    """

    def __init__(self, config: Voc2012Config, split: str) -> None:
        require_split(split)
        root = _devkit(root_folder(config))
        self._sbd = _sbd_folder(config)
        self._root = root
        chosen = {"train": self._train_names(config.train_set), "val": self._val_names(config.val_set)}
        shared = set(chosen["train"]) & set(chosen["val"])
        if shared:
            raise DataError(
                f"dataset.train_set={config.train_set} and dataset.val_set={config.val_set} share "
                f"{len(shared)} images, such as {min(shared)}: choose sets that do not"
            )
        names = chosen[split]
        images = {name: self._image(name) for name in names}
        labels = {name: self._label(name) for name in names}
        super().__init__(config, root, names, images, labels)

    def _train_names(self, chosen: str) -> list[str]:
        if chosen != "trainaug" or (self._root / _LISTS / "trainaug.txt").is_file():
            return self._listed(chosen)
        if self._sbd is None:
            raise DataError(
                f"dataset.train_set=trainaug: there is no '{self._root / _LISTS / 'trainaug.txt'}'; set "
                "dataset.sbd_root to the folder of the Semantic Boundaries Dataset, benchmark_RELEASE/dataset"
            )
        extended = {*self._listed("train"), *self._sbd_listed("train"), *self._sbd_listed("val")}
        return sorted(extended - set(self._listed("val")))

    def _val_names(self, chosen: str) -> list[str]:
        if chosen != "seg11valid" or (self._root / _LISTS / "seg11valid.txt").is_file():
            return self._listed(chosen)
        if self._sbd is None:
            raise DataError(
                "dataset.val_set=seg11valid: these are the validation images that SBD does not train on; set "
                "dataset.sbd_root to its folder, benchmark_RELEASE/dataset"
            )
        seen = set(self._sbd_listed("train"))
        return [name for name in self._listed("val") if name not in seen]

    def _listed(self, name: str) -> list[str]:
        return read_names(self._root / _LISTS / f"{name}.txt")

    def _sbd_listed(self, name: str) -> list[str]:
        return read_names(self._sbd / f"{name}.txt")

    def _image(self, name: str) -> Path:
        places = [self._root / "JPEGImages"] + ([self._sbd / "img"] if self._sbd else [])
        return _existing([place / f"{name}.jpg" for place in places], "image")

    def _label(self, name: str) -> Path:
        """Return VOC's own label if there is one: those of SBD are coarser at the borders."""
        places = [self._root / folder / f"{name}.png" for folder in ("SegmentationClass", "SegmentationClassAug")]
        if self._sbd:
            places.append(self._sbd / "cls" / f"{name}.mat")
        return _existing(places, "label")

    def _read_label(self, path: Path) -> np.ndarray:
        return read_mat(path) if path.suffix == ".mat" else super()._read_label(path)


def read_mat(path: Path) -> np.ndarray:
    """Return the class indices in one of SBD's files, H x W uint8.

    Raises:
        DataError: If it is damaged, or holds something else.
    """
    from scipy.io import loadmat

    try:
        if path.stat().st_size > _LARGEST_MAT:
            raise ValueError("larger than any label")
        labels = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise ValueError(f"{labels.dtype} of shape {labels.shape}")
    except Exception as error:  # What scipy raises depends on where the damage is.
        raise DataError(f"label '{path}' is not a .mat of SBD with GTcls.Segmentation: replace it ({error})") from None
    return labels


def _devkit(root: Path) -> Path:
    """Return the folder that holds the lists: the given one, or one below it."""
    for place in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012", root / "VOC2011", root / "VOCdevkit/VOC2011"):
        if (place / _LISTS).is_dir():
            return place
    raise DataError(
        f"dataset.root: '{root}' holds no {_LISTS}: give the folder VOCdevkit/VOC2012 of PASCAL VOC "
        "(host.robots.ox.ac.uk/pascal/VOC, for research)"
    )


def _sbd_folder(config: Voc2012Config) -> Path | None:
    if config.sbd_root is None:
        return None
    root = Path(config.sbd_root).expanduser()
    for place in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (place / "cls").is_dir():
            return place
    raise DataError(f"dataset.sbd_root: '{root}' holds no folder cls: give benchmark_RELEASE/dataset of SBD")


def _existing(places: list[Path], kind: str) -> Path:
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"there is no {kind} '{places[0]}'{', nor elsewhere' if len(places) > 1 else ''}: add it")
