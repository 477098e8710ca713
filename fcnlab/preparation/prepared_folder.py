"""The prepared folder: images, labels, lists and description, each file whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from fcnlab.core.files import replacing
from fcnlab.data.channels import full_range
from fcnlab.data.description import FILE
from fcnlab.drawing.label_maps import write_mask
from fcnlab.drawing.palette import palette
from fcnlab.preparation.originals import Item, Source

VOID = 255


@dataclass
class Statistics:
    """Of the training images.

    Attributes:
        pixels: Of each class, C int64.
        total: Sum of each channel's values on the scale 0 to 1, and of their squares; pixels in all.
    """

    pixels: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    count: int = 0

    @classmethod
    def of(cls, num_classes: int, channels: int) -> Statistics:
        """Nothing yet."""
        return cls(np.zeros(num_classes, np.int64), np.zeros(channels), np.zeros(channels))

    def add(self, image: np.ndarray, label: np.ndarray) -> None:
        """Count an image, H x W x C uint8 or uint16, and its label."""
        self.pixels += np.bincount(label.ravel(), minlength=256)[: len(self.pixels)]
        levels = full_range(image) + 1
        values = np.arange(levels) / (levels - 1)
        for channel in range(image.shape[2]):
            histogram = np.bincount(image[..., channel].ravel(), minlength=levels)
            self.total[channel] += histogram @ values
            self.squares[channel] += histogram @ values**2
        self.count += label.size

    def mean_and_deviation(self) -> tuple[list[float], list[float]]:
        """Per channel, rounded to what a description needs."""
        mean = self.total / max(self.count, 1)
        deviation = np.sqrt(np.maximum(self.squares / max(self.count, 1) - mean**2, 1e-6))
        return np.round(mean, 4).tolist(), np.round(np.maximum(deviation, 1e-3), 4).tolist()


def write_pair(root: Path, item: Item, source: Source, image: np.ndarray, label: np.ndarray) -> bool:
    """Put an image and its label in place.

    Returns:
        Whether anything had to be written: what is there with the same content stays.

    Raises:
        OSError: If the disk does not take it.
    """
    changed = _write_image(root / "images", item, image)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(source.class_names)] = _palette(source)
    colours[VOID] = (224, 224, 192)
    path = root / "labels" / f"{item.name}.png"
    if _same_label(path, label):
        return changed
    write_mask(path, np.ascontiguousarray(label), colours)
    return True


def without_void(label: np.ndarray, ignore_index: int) -> np.ndarray:
    """A label with 255 for void, whatever stood for it."""
    return np.where(label == ignore_index, np.uint8(VOID), label).astype(np.uint8)


def write_description(
    root: Path,
    source: Source,
    statistics: Statistics,
    splits: dict[str, Sequence[str]],
    origin: str,
    records: bool = False,
) -> None:
    """Write ``dataset.yaml`` and the lists that it names; with ``records``, it says to train from MindRecord files.

    Raises:
        OSError: If the disk does not take them.
    """
    for split, names in splits.items():
        with replacing(root / f"{split}.txt") as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    mean, deviation = statistics.mean_and_deviation()
    document = {
        "class_names": source.class_names,
        "palette": _palette(source).tolist(),
        "ignore_index": VOID,
        "train_list": "train.txt",
        "val_list": "val.txt",
        "channels": source.channels,
        "bits": source.bits,
        **({"records": True} if records else {}),
        "mean": mean,
        "std": deviation,
        "class_pixels": statistics.pixels.tolist(),
        "source": origin,
        "licence": source.licence or "unknown",
    }
    with replacing(root / FILE) as temporary:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        temporary.write_text(f"# Made by fcnlab.prepare; train with dataset=folder dataset.root=<this folder>\n{text}")


def _write_image(folder: Path, item: Item, image: np.ndarray) -> bool:
    """A copy of the file where there is one, else a PNG."""
    if item.image is not None:
        path = folder / f"{item.name}{item.image.suffix.lower()}"
        if path.is_file() and path.read_bytes() == item.image.read_bytes():
            return False
        with replacing(path) as temporary:
            shutil.copyfile(item.image, temporary)
        return True
    path = folder / f"{item.name}.png"
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if path.is_file() and path.read_bytes() == data.tobytes():
        return False
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return True


def _same_label(path: Path, label: np.ndarray) -> bool:
    from fcnlab.core.errors import DataError
    from fcnlab.data.label_files import read_label

    try:
        return path.is_file() and np.array_equal(read_label(path, white=1), label)
    except DataError:
        return False


def _palette(source: Source) -> np.ndarray:
    return np.array(source.palette or palette(len(source.class_names)), np.uint8)
