"""What there is to prepare: images with a way to read each one's label, found in a folder or an archive."""

from __future__ import annotations

import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data import image_files
from fcnlab.data.dataset import Dataset
from fcnlab.data.decode import EXTENSIONS
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.labelled_files import LabelledFiles
from fcnlab.data.sample_names import natural_key
from fcnlab.metrics.names import class_names
from fcnlab.preparation.annotations import Coco, from_colours, from_labelme, from_values
from fcnlab.registry import DATASETS

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LARGEST_ARCHIVE = 64 * 2**30  # bytes that come out of it


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: Unique; a file's stem.
        image: Its file; None if it is a page of a volume.
        read: The image, H x W x C uint8 or uint16, and its class indices, H x W uint8.
        split: ``train`` or ``val``, if the source says so.
    """

    name: str
    image: Path | None
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    split: str | None = None


@dataclass
class Source:
    """All that is to be prepared.

    Attributes:
        items: In order.
        class_names: Of the classes.
        palette: Their colours; empty: PASCAL VOC's.
        ignore_index: Of void in what `Item.read` gives.
        channels: Of each image.
        bits: Of each channel.
        licence: What is known of it.
    """

    items: list[Item]
    class_names: list[str]
    palette: list[list[int]] = field(default_factory=list)
    ignore_index: int = 255
    channels: int = 3
    bits: int = 8
    licence: str = ""


LICENCES = {
    "voc2012": "PASCAL VOC: flickr images, for research; host.robots.ox.ac.uk/pascal/VOC",
    "camvid": "CamVid: for research; mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid",
    "isbi2012": "ISBI 2012 EM challenge: free for research; imagej.net/events/isbi-2012-segmentation-challenge",
}


COUNTS = {
    "voc2012": {"train": 1464, "trainval": 2913, "trainaug": 10582, "val": 1449},
    "camvid": {"train": 367, "val": 101, "test": 233},
}
"""Images of each set as it is distributed, by data set."""


def missing(config: PrepareConfig, source: Source) -> list[str]:
    """What a data set lacks of what is distributed, or has beyond it: a line for each set."""
    lines = []
    for split, default in (("train", "train"), ("val", "val")):
        chosen = getattr(config.dataset, f"{split}_set", default)
        expected = COUNTS.get(config.dataset.name, {}).get(chosen)
        found = sum(item.split == split for item in source.items)
        if expected is not None and found != expected:
            lines.append(
                f"{config.dataset.name}: {chosen} has {found:,} images here and {expected:,} as it is distributed; is "
                f"it whole? {LICENCES[config.dataset.name]}"
            )
    return lines


def find(config: PrepareConfig, folder: Path) -> Source:
    """Look at a folder.

    Args:
        config: What is known of it.
        folder: The source, unpacked.

    Raises:
        DataError: Naming what is missing, and where the data set is to be had.
    """
    name = config.dataset.name
    if name == "folder":
        source = _of_folder(config, folder)
        source.channels, source.bits = config.channels, config.bits
        return source
    if (config.channels, config.bits) != (config.dataset.channels, config.dataset.bits):
        raise ConfigError(f"channels and bits: dataset={name} has 3 of 8 bits; they are for dataset=folder")
    config.dataset.root = str(folder)
    try:
        splits = {split: DATASETS.get(name)(config.dataset, split) for split in ("train", "val")}
    except DataError as error:
        hint = f"; {LICENCES[name]}" if name in LICENCES else ""
        raise DataError(f"source={config.source}: {error}{hint}") from error
    items = [_of_sample(dataset, index, split) for split, dataset in splits.items() for index in range(len(dataset))]
    names = class_names(config.dataset.class_names, config.dataset.num_classes)
    palette, void = config.dataset.palette, config.dataset.ignore_index
    return Source(items, names, [list(colour) for colour in palette], void, licence=LICENCES.get(name, ""))


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive; nothing in it gets out of the folder.

    Raises:
        DataError: If it is damaged, tries to, or holds more than 64 GiB.
    """
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                _limit(sum(item.file_size for item in file.infolist()), archive)
                file.extractall(folder)  # which drops what leads out
        else:
            with tarfile.open(archive) as file:
                members = file.getmembers()
                _limit(sum(member.size for member in members), archive)
                file.extractall(folder, members, filter="data")
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"source={archive}: cannot be unpacked ({' '.join(str(error).split())[:150]})") from None


def _limit(size: int, archive: Path) -> None:
    if size > _LARGEST_ARCHIVE:
        raise DataError(f"source={archive}: holds {size / 2**30:.0f} GiB, and at most 64 are unpacked: do it by hand")


def _of_sample(dataset: Dataset, index: int, split: str) -> Item:
    name = dataset.names[index]

    def read() -> tuple[np.ndarray, np.ndarray]:
        sample = dataset[index]
        return sample.image, sample.label

    return Item(name, dataset.image_path(name) if isinstance(dataset, LabelledFiles) else None, read, split)


def _of_folder(config: PrepareConfig, folder: Path) -> Source:
    if config.annotations is not None:
        return _of_coco(config, folder)
    images = _pictures(_below(folder, config.images), IMAGE_EXTENSIONS)
    if any(image.with_suffix(".json").is_file() for image in images.values()):
        return _of_labelme(config, images)
    labels = _pictures(_below(folder, config.labels), EXTENSIONS)
    alone = sorted(images.keys() ^ labels.keys(), key=natural_key)
    if alone:
        raise DataError(
            f"source={config.source}: {len(alone)} images and labels are alone, such as '{alone[0]}': each image needs "
            f"a label of the same name in {config.labels}/, and no label more"
        )
    if not config.classes:
        raise DataError("classes: name them in order, as in classes=[background,cell]")
    items = []
    for name in sorted(images, key=natural_key):
        if config.colours:
            read = partial(from_colours, labels[name], config.colours, config.void_colour)
        else:
            read = partial(from_values, labels[name], config.values, len(config.classes))
        items.append(Item(name, images[name], partial(_read_both, config, images[name], lambda _, read=read: read())))
    return Source(items, list(config.classes), [list(colour) for colour in config.colours])


def _of_labelme(config: PrepareConfig, images: dict[str, Path]) -> Source:
    if len(config.classes) < 2:
        raise DataError("classes: name them, the background first, as in classes=[background,cell]")
    missing = [name for name, image in images.items() if not image.with_suffix(".json").is_file()]
    if missing:
        raise DataError(f"source={config.source}: image '{missing[0]}' has no LabelMe file of its name")
    items = []
    for name in sorted(images, key=natural_key):
        read = partial(from_labelme, images[name].with_suffix(".json"), config.classes)
        items.append(Item(name, images[name], partial(_read_both, config, images[name], read)))
    return Source(items, list(config.classes))


def _of_coco(config: PrepareConfig, folder: Path) -> Source:
    path = Path(config.annotations)
    coco = Coco(path if path.is_file() else folder / path, config.classes)
    items = []
    for image_id, file_name in coco.files.items():
        places = [folder / config.images / Path(file_name).name, folder / Path(file_name).name]
        image = next((place for place in places if place.is_file()), None)
        if image is None:
            raise DataError(f"annotation '{coco.path}': there is no image '{places[0]}'")
        items.append(Item(image.stem, image, partial(_read_both, config, image, partial(coco.label, image_id))))
    items.sort(key=lambda item: natural_key(item.name))
    twice = [one.name for one, other in pairwise(items) if one.name == other.name]
    if twice or not items:
        raise DataError(f"annotation '{coco.path}': {f'two images are called {twice[0]}' if twice else 'has no image'}")
    return Source(items, coco.class_names)


def _read_both(
    config: PrepareConfig, image: Path, read: Callable[[tuple[int, int]], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    pixels = image_files.read(image, config.channels, config.bits)
    labels = read(pixels.shape[:2])
    if labels.shape != pixels.shape[:2]:
        raise DataError(f"image '{image}' and its label differ in size")
    return pixels, labels


def _below(folder: Path, name: str) -> Path:
    """The folder of that name, in this one or in the only one that an archive holds."""
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    for place in (folder / name, *(path / name for path in inside)):
        if place.is_dir():
            return place
    raise DataError(f"there is no folder '{folder / name}': set `images` and `labels` to the names of the folders")


def _pictures(folder: Path, extensions: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in extensions and not path.name.startswith("."):
            name = unicodedata.normalize("NFC", path.stem)
            if name in found:
                raise DataError(f"'{found[name]}' and '{path}' share the name '{name}': remove or rename one")
            found[name] = path
    if not found:
        raise DataError(f"folder '{folder}' is empty: no file ends in {', '.join(extensions)}")
    return found
