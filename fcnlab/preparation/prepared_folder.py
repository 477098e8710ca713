"""The prepared folder: images, labels, lists and description, each file whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

from fcnlab.core.errors import DataError
from fcnlab.core.files import replacing
from fcnlab.data.description import FILE
from fcnlab.data.label_files import read_label
from fcnlab.drawing.label_maps import write_mask
from fcnlab.drawing.palette import palette
from fcnlab.preparation.annotations import VOID
from fcnlab.preparation.originals import Original, Originals
from fcnlab.preparation.pixel_statistics import PixelStatistics

_VOID_COLOUR = (224, 224, 192)


def write_pair(root: Path, original: Original, colours: np.ndarray, image: np.ndarray, label: np.ndarray) -> bool:
    """Write an image and its label, unless they are there with the same content.

    Args:
        root: The prepared folder.
        original: The image's name and file.
        colours: The colour of each value of a label, as `colour_table` returns it.
        image: H x W x 3 uint8, for an original without a file.
        label: H x W uint8, with 255 for void.

    Returns:
        Whether anything had to be written.

    Raises:
        OSError: If the disk does not take it.
    """
    changed = _write_image(root / "images", original, image)
    path = root / "labels" / f"{original.name}.png"
    if _same_label(path, label):
        return changed
    write_mask(path, np.ascontiguousarray(label), colours)
    return True


def without_void(label: np.ndarray, ignore_index: int) -> np.ndarray:
    """Return a label with 255 for void, whatever value stood for it."""
    return np.where(label == ignore_index, np.uint8(VOID), label).astype(np.uint8)


def colour_table(originals: Originals) -> np.ndarray:
    """Return the colour of each value of a label, 256 x 3 uint8 RGB; values that mean nothing are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(originals.class_names)] = originals.palette or palette(len(originals.class_names))
    table[VOID] = _VOID_COLOUR
    return table


def write_description(
    root: Path,
    originals: Originals,
    statistics: PixelStatistics,
    splits: dict[str, Sequence[str]],
    origin: str,
    records: bool = False,
) -> None:
    """Write ``dataset.yaml`` and the lists that it names.

    Args:
        root: The prepared folder.
        originals: What was prepared.
        statistics: The statistics of the training images.
        splits: The names of both splits.
        origin: Where the originals came from, for people.
        records: Whether a training is to read the MindRecord files.

    Raises:
        OSError: If the disk does not take them.
    """
    for split, names in splits.items():
        with replacing(root / f"{split}.txt") as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    mean, deviation = statistics.mean_and_deviation()
    document = {
        "class_names": originals.class_names,
        "palette": colour_table(originals)[: len(originals.class_names)].tolist(),
        "ignore_index": VOID,
        "train_list": "train.txt",
        "val_list": "val.txt",
        "channels": originals.channels,
        "bits": originals.bits,
        **({"records": True} if records else {}),
        "mean": mean,
        "std": deviation,
        "class_pixels": statistics.class_pixels.tolist(),
        "source": origin,
        "licence": originals.licence or "unknown",
    }
    with replacing(root / FILE) as temporary:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        temporary.write_text(f"# Made by fcnlab.prepare; train with dataset=folder dataset.root=<this folder>\n{text}")


def _write_image(folder: Path, original: Original, image: np.ndarray) -> bool:
    """Copy the image's file, or write a PNG if it has none."""
    if original.path is not None:
        path = folder / f"{original.name}{original.path.suffix.lower()}"
        if path.is_file() and path.read_bytes() == original.path.read_bytes():
            return False
        with replacing(path) as temporary:
            shutil.copyfile(original.path, temporary)
        return True
    path = folder / f"{original.name}.png"
    data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    if path.is_file() and path.read_bytes() == data:
        return False
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return True


def _same_label(path: Path, label: np.ndarray) -> bool:
    try:
        return path.is_file() and np.array_equal(read_label(path, white=1), label)
    except DataError:
        return False
