"""A researcher's own images, each with a way to read its label, as they are found in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data import image_files
from fcnlab.data.dataset import SPLITS, Dataset
from fcnlab.data.decode import EXTENSIONS
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.image_folder import draw_validation, files_by_stem
from fcnlab.data.labelled_files import LabelledFiles
from fcnlab.data.sample_names import natural_key
from fcnlab.metrics.names import class_names
from fcnlab.preparation.annotations import VOID, Coco, from_colours, from_labelme, from_values
from fcnlab.registry import DATASETS

LICENCES = {
    "voc2012": "PASCAL VOC: flickr images, for research; host.robots.ox.ac.uk/pascal/VOC",
    "camvid": "CamVid: for research; mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
    "isbi2012": "ISBI 2012 EM challenge: free for research; imagej.net/events/isbi-2012-segmentation-challenge",
}
"""What is known of the licence of each data set, and where it can be had."""

COUNTS = {
    "voc2012": {"train": 1464, "trainval": 2913, "trainaug": 10582, "val": 1449},
    "camvid": {"train": 367, "val": 101, "test": 233},
}
"""The number of images of each set as it is distributed, by data set."""


@dataclass(frozen=True)
class Original:
    """One image with a way to read its label.

    Attributes:
        name: A unique name, such as the file's stem.
        path: The image's file; None if it is a page of a volume.
        read: A function that returns the image, H x W x C uint8 or uint16, and its class indices, H x W uint8.
        split: ``train`` or ``val``; None if the originals do not say.
    """

    name: str
    path: Path | None
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    split: str | None = None


@dataclass
class Originals:
    """All images that are to be prepared.

    Attributes:
        images: The images, in order.
        class_names: The names of the classes.
        palette: The colours of the classes; if empty, those of PASCAL VOC.
        ignore_index: The value of void in the labels that `Original.read` returns.
        channels: The number of channels of each image.
        bits: The bits of each channel.
        licence: What is known of the licence.
    """

    images: list[Original]
    class_names: list[str]
    palette: list[list[int]] = field(default_factory=list)
    ignore_index: int = VOID
    channels: int = 3
    bits: int = 8
    licence: str = ""

    def splits(self, config: PrepareConfig) -> dict[str, list[str]]:
        """Return the names of both splits: as the originals say, or drawn by ``split_seed``.

        Raises:
            DataError: If there is a single image, which cannot be split.
        """
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        names = [image.name for image in self.images]
        if any(image.split for image in self.images):
            validation = {image.name for image in self.images if image.split == "val"}
        elif len(names) < 2:
            raise DataError(f"source={config.source} has {len(names)} images, and two splits need at least 2")
        else:
            validation = draw_validation(names, config.val_fraction, config.split_seed)
        for name in names:
            splits["val" if name in validation else "train"].append(name)
        return splits


def find(config: PrepareConfig, folder: Path) -> Originals:
    """Return the originals in a folder.

    Args:
        config: What is known of them.
        folder: The source, unpacked.

    Raises:
        DataError: If something is missing, naming it and where the data set can be had.
        ConfigError: If channels or bits are set for a data set that has its own.
    """
    name = config.dataset.name
    if name == "folder":
        originals = _in_folder(config, folder)
        originals.channels, originals.bits = config.channels, config.bits
        return originals
    if (config.channels, config.bits) != (config.dataset.channels, config.dataset.bits):
        raise ConfigError(
            f"channels and bits are for dataset=folder: the images of dataset={name} have 3 channels of 8 bits"
        )
    config.dataset.root = str(folder)
    try:
        splits = {split: DATASETS.get(name)(config.dataset, split) for split in SPLITS}
    except DataError as error:
        hint = f"; {LICENCES[name]}" if name in LICENCES else ""
        raise DataError(f"source={config.source}: {error}{hint}") from error
    images = [_of_sample(dataset, index, split) for split, dataset in splits.items() for index in range(len(dataset))]
    names = class_names(config.dataset.class_names, config.dataset.num_classes)
    palette, void = config.dataset.palette, config.dataset.ignore_index
    return Originals(images, names, [list(colour) for colour in palette], void, licence=LICENCES.get(name, ""))


def missing(config: PrepareConfig, originals: Originals) -> list[str]:
    """Return a line for each set of a data set that has fewer or more images than as it is distributed."""
    lines = []
    for split in SPLITS:
        chosen = getattr(config.dataset, f"{split}_set", split)
        expected = COUNTS.get(config.dataset.name, {}).get(chosen)
        found = sum(image.split == split for image in originals.images)
        if expected is not None and found != expected:
            lines.append(
                f"{config.dataset.name}: {chosen} has {found:,} images here and {expected:,} as it is distributed; is "
                f"it whole? {LICENCES[config.dataset.name]}"
            )
    return lines


def _of_sample(dataset: Dataset, index: int, split: str) -> Original:
    name = dataset.names[index]

    def read() -> tuple[np.ndarray, np.ndarray]:
        sample = dataset[index]
        return sample.image, sample.label

    return Original(name, dataset.image_path(name) if isinstance(dataset, LabelledFiles) else None, read, split)


def _in_folder(config: PrepareConfig, folder: Path) -> Originals:
    if config.annotations is not None:
        return _with_coco(config, folder)
    images = files_by_stem(_subfolder(folder, config.images), IMAGE_EXTENSIONS)
    if any(image.with_suffix(".json").is_file() for image in images.values()):
        return _with_labelme(config, images)
    labels = files_by_stem(_subfolder(folder, config.labels), EXTENSIONS)
    alone = sorted(images.keys() ^ labels.keys(), key=natural_key)
    if alone:
        raise DataError(
            f"source={config.source}: {len(alone)} images and labels have no partner, such as '{alone[0]}': each image "
            f"needs a label of the same name in {config.labels}/, and each label an image"
        )
    if not config.classes:
        raise DataError("classes: name them in order, as in classes=[background,cell]")

    def read_label(name: str, shape: tuple[int, int]) -> np.ndarray:
        if config.colours:
            return from_colours(labels[name], config.colours, config.void_colour)
        return from_values(labels[name], config.values, len(config.classes))

    originals = _with_labels(config, images, read_label)
    return Originals(originals, list(config.classes), [list(colour) for colour in config.colours])


def _with_labelme(config: PrepareConfig, images: Mapping[str, Path]) -> Originals:
    if len(config.classes) < 2:
        raise DataError("classes: name them, the background first, as in classes=[background,cell]")
    alone = [name for name, image in images.items() if not image.with_suffix(".json").is_file()]
    if alone:
        raise DataError(f"source={config.source}: image '{alone[0]}' has no LabelMe file of its name")

    def read_label(name: str, shape: tuple[int, int]) -> np.ndarray:
        return from_labelme(images[name].with_suffix(".json"), config.classes, shape)

    return Originals(_with_labels(config, images, read_label), list(config.classes))


def _with_coco(config: PrepareConfig, folder: Path) -> Originals:
    path = Path(config.annotations)
    coco = Coco(path if path.is_file() else folder / path, config.classes)
    originals = []
    for image_id, file_name in coco.files.items():
        places = [folder / config.images / Path(file_name).name, folder / Path(file_name).name]
        image = next((place for place in places if place.is_file()), None)
        if image is None:
            raise DataError(f"annotation '{coco.path}': there is no image '{places[0]}'")
        read = partial(_read_both, config, image, partial(coco.label, image_id))
        originals.append(Original(image.stem, image, read))
    originals.sort(key=lambda original: natural_key(original.name))
    twice = [one.name for one, other in pairwise(originals) if one.name == other.name]
    if twice or not originals:
        raise DataError(f"annotation '{coco.path}': {f'two images are called {twice[0]}' if twice else 'has no image'}")
    return Originals(originals, coco.class_names)


def _with_labels(
    config: PrepareConfig, images: Mapping[str, Path], read_label: Callable[[str, tuple[int, int]], np.ndarray]
) -> list[Original]:
    """Return the images in natural order; ``read_label`` takes an image's name, height and width."""
    return [
        Original(name, images[name], partial(_read_both, config, images[name], partial(read_label, name)))
        for name in sorted(images, key=natural_key)
    ]


def _read_both(
    config: PrepareConfig, image: Path, read_label: Callable[[tuple[int, int]], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    pixels = image_files.read(image, config.channels, config.bits)
    labels = read_label(pixels.shape[:2])
    if labels.shape != pixels.shape[:2]:
        raise DataError(f"image '{image}' and its label differ in size")
    return pixels, labels


def _subfolder(folder: Path, name: str) -> Path:
    """Return the folder of a name in this folder, or in one of its folders: an archive often holds a single one."""
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    for place in (folder / name, *(path / name for path in inside)):
        if place.is_dir():
            return place
    raise DataError(f"there is no folder '{folder / name}': set `images` and `labels` to the names of the folders")
