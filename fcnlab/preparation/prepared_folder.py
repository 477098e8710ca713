"""The prepared folder: images, labels, lists and description, each file whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from fcnlab.core.errors import DataError
from fcnlab.core.files import replacing
from fcnlab.core.foreign_files import LARGEST_YAML, read_text
from fcnlab.data.description import FILE
from fcnlab.data.image_files import ARRAY, IMAGE_EXTENSIONS
from fcnlab.data.image_folder import fold_list
from fcnlab.data.label_files import read_raw_label
from fcnlab.data.sample_lists import listed
from fcnlab.drawing.label_maps import write_mask
from fcnlab.drawing.palette import class_palette
from fcnlab.preparation.annotated_images import Original, Originals
from fcnlab.preparation.json_documents import VOID
from fcnlab.preparation.pixel_statistics import PixelStatistics

_VOID_COLOUR = (224, 224, 192)
_MADE_BY = "# Made by fcnlab.prepare"


class PreparedFolder:
    """The folder that is written.

    Args:
        root: The folder.

    Attributes:
        root: The folder.
        removed: The files that were removed, since their image has another extension now.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.removed: list[Path] = []
        self._is_ours = _is_ours(root)
        self._there: dict[str, list[Path]] = {}
        folder = root / "images"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith("."):
                self._there.setdefault(path.stem, []).append(path)

    def write_pair(self, original: Original, colours: np.ndarray, image: np.ndarray, label: np.ndarray) -> bool:
        """Write an image and its label, unless they are there with the same content.

        Args:
            original: The image's name and file.
            colours: The colour of each value of a label, as `colour_table` returns it.
            image: H x W x C uint8 or uint16, for an original without a file.
            label: H x W uint8, with 255 for void.

        Returns:
            Whether anything had to be written.

        Raises:
            DataError: If a file would be replaced that is not known to be of an earlier call.
            OSError: If the disk does not take it.
        """
        path, data = _image_file(self.root / "images", original, image)
        for other in self._there.get(original.name, []):
            if other != path:
                self._require_ours(other)
                other.unlink()
                self.removed.append(other)
        changed = not _holds(path, data)
        if changed:
            self._require_ours(path)
            with replacing(path) as temporary:
                shutil.copyfile(data, temporary) if isinstance(data, Path) else temporary.write_bytes(data)
        path = self.root / "labels" / f"{original.name}.png"
        if _same_label(path, label, colours):
            return changed
        self._require_ours(path)
        write_mask(path, np.ascontiguousarray(label), colours)
        return True

    def _require_ours(self, path: Path) -> None:
        if not self._is_ours and path.exists():
            raise DataError(
                f"'{path}' is there already with other content, and '{self.root}' holds no {FILE} of fcnlab.prepare: "
                "set root to another folder, or remove the file"
            )


def without_void(label: np.ndarray, ignore_index: int) -> np.ndarray:
    """Return a label with 255 for void, whatever value stood for it."""
    return np.where(label == ignore_index, np.uint8(VOID), label).astype(np.uint8)


def colour_table(originals: Originals) -> np.ndarray:
    """Return the colour of each value of a label, 256 x 3 uint8 RGB; values that mean nothing are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(originals.class_names)] = class_palette(originals.class_names, originals.palette)
    table[VOID] = _VOID_COLOUR
    return table


def write_description(
    root: Path,
    originals: Originals,
    statistics: PixelStatistics,
    splits: Mapping[str, Sequence[str]],
    origin: str,
    *,
    drawn: Mapping[str, Any],
    folds: Sequence[Sequence[str]] = (),
    records: bool = False,
) -> None:
    """Write ``dataset.yaml`` and the lists that it names.

    Args:
        root: The prepared folder.
        originals: What was prepared.
        statistics: The statistics of the training images.
        splits: The names of each split.
        origin: Where the originals came from, for people.
        drawn: How the splits were drawn, for people: keys of the configuration.
        folds: The names of each fold.
        records: Whether a training is to read the MindRecord files.

    Raises:
        OSError: If the disk does not take them.
    """
    lists = {f"{split}.txt": names for split, names in splits.items() if names}
    lists |= {fold_list(number): names for number, names in enumerate(folds)}
    for name, names in lists.items():
        with replacing(root / name) as temporary:
            temporary.write_text("".join(f"{listed(name)}\n" for name in names), encoding="utf-8")
    mean, deviation = statistics.mean_and_deviation()
    document = {
        "class_names": originals.class_names,
        "palette": colour_table(originals)[: len(originals.class_names)].tolist(),
        "ignore_index": VOID,
        "train_list": "train.txt",
        "val_list": "val.txt",
        **({"test_list": "test.txt"} if splits.get("test") else {}),
        **({"folds": len(folds)} if folds else {}),
        **drawn,
        "channels": originals.channels,
        "bits": originals.bits,
        **({"value_range": list(originals.value_range)} if originals.value_range else {}),
        **({"turned": originals.turned} if originals.turned is not None else {}),
        **({"records": True} if records else {}),
        "mean": mean,
        "std": deviation,
        "class_pixels": statistics.class_pixels.tolist(),
        **({"meaning": dict(originals.meaning)} if originals.meaning else {}),
        "source": origin,
        "licence": originals.licence or "unknown",
    }
    with replacing(root / FILE) as temporary:
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        head = f"{_MADE_BY}; train with dataset=folder dataset.root=<this folder>\n"
        temporary.write_text(head + text, encoding="utf-8")


def _is_ours(root: Path) -> bool:
    """Whether an earlier call has prepared the folder."""
    try:
        return read_text(root / FILE, LARGEST_YAML).startswith(_MADE_BY)
    except (OSError, UnicodeDecodeError):
        return False


def _image_file(folder: Path, original: Original, image: np.ndarray) -> tuple[Path, Path | bytes]:
    """Return where an image is written, and its file or, if it has none, its content: a PNG, or an array."""
    if original.path is not None:
        return folder / f"{original.name}{original.path.suffix.lower()}", original.path
    if image.shape[2] == 3:
        data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    elif image.shape[2] == 1:
        data = cv2.imencode(".png", image)[1].tobytes()
    else:
        buffer = BytesIO()
        np.save(buffer, image)
        return folder / f"{original.name}{ARRAY}", buffer.getvalue()
    return folder / f"{original.name}.png", data


def _holds(path: Path, data: Path | bytes) -> bool:
    """Whether a file has this content, or that of this file."""
    if not path.is_file():
        return False
    return path.read_bytes() == (data.read_bytes() if isinstance(data, Path) else data)


def _same_label(path: Path, label: np.ndarray, colours: np.ndarray) -> bool:
    """Whether a file holds these class indices in these colours."""
    try:
        held = read_raw_label(path, white=1) if path.is_file() else None
    except DataError:
        return False
    return held is not None and np.array_equal(held.values, label) and np.array_equal(held.palette, colours)
