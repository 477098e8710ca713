"""A researcher's own images, or those of a published data set, each with a way to read its label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data.dataset import SPLITS, Dataset
from fcnlab.data.labelled_files import LabelledFiles
from fcnlab.data.orientation import Turning
from fcnlab.metrics.names import class_names
from fcnlab.preparation import coco_folders, labelme_folders, pixel_folders
from fcnlab.preparation.annotated_images import Original, Originals, evidence_of, original_of
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
        return _in_folder(config, folder)
    kind = (config.channels, config.bits, list(config.value_range), config.tile)
    if kind != (config.dataset.channels, config.dataset.bits, [], None):
        raise ConfigError(
            f"channels, bits, value_range and tile are for dataset=folder: the images of dataset={name} have 3 "
            "channels of 8 bits"
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
    return Originals(
        images,
        names,
        [list(colour) for colour in palette],
        void,
        licence=LICENCES.get(name, ""),
        turned=config.dataset.turned,  # as the labels that are written were read
    )


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
    """Return the originals of a researcher's own folder, whichever kind of label they have."""
    documents = None
    is_coco = config.annotations is not None or coco_folders.has_export(config, folder)
    if not is_coco:
        documents = labelme_folders.documents_of(config, folder)
    if config.tile is not None and (is_coco or documents is not None):
        raise ConfigError(
            "tile: the labels of LabelMe and COCO files are drawn on whole images: prepare them without tile, and then "
            "prepare the folder that comes of it with tile"
        )
    if is_coco:
        annotated, found = coco_folders.find(config, folder)
    elif documents is not None:
        annotated, found = labelme_folders.find_in(config, folder, *documents)
    else:
        annotated, found = pixel_folders.find(config, folder)
    found.channels, found.bits, found.value_range = config.channels, config.bits, list(config.value_range)
    evidence = evidence_of(annotated)
    found.turned = evidence.decide("turned") if config.turned is None else config.turned
    turning = Turning(config.turned if found.turned is None else found.turned, lambda: evidence, "turned")
    found.images = [original_of(config, folder, item, turning, found.depths) for item in annotated]
    return found
