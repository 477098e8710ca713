"""Labels in other formats, turned into class indices: colours, values, and polygons of LabelMe and COCO."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import read_text
from fcnlab.data import image_files
from fcnlab.data.decode import decode
from fcnlab.data.label_files import read_label
from fcnlab.data.sample_names import first_few
from fcnlab.metrics.names import why_refused

_LARGEST_JSON = 256 * 2**20  # bytes

VOID = 255
"""The class index of void in what is prepared."""

_AREAS = ("polygon", "rectangle", "circle")


def from_colours(path: Path, colours: Sequence[Sequence[int]], void: Sequence[int] | None) -> np.ndarray:
    """Read a label whose pixels have the colours of classes.

    Args:
        path: The label.
        colours: The red, green and blue of each class.
        void: The red, green and blue of void; None if nothing is void.

    Returns:
        Class indices, H x W uint8, with 255 for void.

    Raises:
        DataError: If a pixel has another colour, as happens in a JPEG.
    """
    pixels = image_files.read(path).astype(np.uint32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    labels = np.full(codes.shape, VOID, np.uint8)
    known = np.zeros(codes.shape, bool)
    table = [(colour, index) for index, colour in enumerate(colours)] + ([(void, VOID)] if void else [])
    for (red, green, blue), index in table:
        here = codes == (red << 16 | green << 8 | blue)
        labels[here] = index
        known |= here
    if not known.all():
        strange = np.unique(codes[~known])
        shown = [f"[{code >> 16},{code >> 8 & 255},{code & 255}]" for code in strange[:5].tolist()]
        more = f" and {strange.size - 5} more" if strange.size > 5 else ""
        raise DataError(
            f"label '{path}' has the colours {', '.join(shown)}{more}, which are no class's: complete `colours`, or "
            "set `void_colour` (a JPEG changes colours: take PNGs)"
        )
    return labels


def from_values(path: Path, values: Sequence[int], num_classes: int) -> np.ndarray:
    """Read a single-channel or palette label.

    Args:
        path: The label.
        values: The value of each class; if empty, the label holds class indices, or 0 and 255 for two classes.
        num_classes: The number of classes.

    Returns:
        Class indices, H x W uint8, with 255 for void.

    Raises:
        DataError: If a pixel has another value.
    """
    raw = read_label(path, white=255 if 255 in values else 1)
    found = np.unique(raw)
    if not values:
        binary = num_classes == 2 and 255 in found and set(found.tolist()) <= {0, 255}
        values = [0, 255] if binary else list(range(num_classes))
    strange = [value for value in found.tolist() if value not in values and value != VOID]
    if strange:
        raise DataError(
            f"label '{path}' has the values {first_few(strange)}, which are no class's: set `values` to that of each "
            "class"
        )
    table = np.full(int(max(found.max(), max(values), VOID)) + 1, VOID, np.uint8)
    table[list(values)] = np.arange(len(values))
    return table[raw]


def from_labelme(path: Path, class_names: Sequence[str], shape: tuple[int, int]) -> np.ndarray:
    """Draw the polygons, rectangles, circles and masks of a LabelMe file, later ones above earlier ones.

    Args:
        path: The JSON file.
        class_names: The names of the classes, the background first. The labels ``void`` and ``ignore`` are void.
        shape: The height and width of the image.

    Returns:
        Class indices, H x W uint8, with 255 for void.

    Raises:
        DataError: If the file is not one of LabelMe's, or has a label that is no class, or a shape without an area.
    """
    document = read_json(path)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list):
        raise DataError(f"annotation '{path}' is no LabelMe file: it has no shapes")
    labels = np.zeros(shape, np.uint8)
    for item in shapes:
        try:
            name, kind = str(item["label"]), item.get("shape_type", "polygon")
            points = np.array(item["points"], dtype=np.float64)
            if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
                raise ValueError("points")
            points = points.clip(-1e6, 1e6)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(f"annotation '{path}' has a shape without a label or points: repair it") from None
        index = _index_of(name, class_names, path)
        if kind == "mask":
            _paste(labels, _mask(item.get("mask"), path), points, index)
        elif kind in _AREAS:
            _draw(labels, kind, points, index)
        else:
            raise DataError(
                f"annotation '{path}' has a {str(kind)[:40]} '{name}', which has no area: make it a polygon, or "
                "remove it"
            )
    return labels


class Coco:
    """A COCO file, which holds polygons and run lengths by image.

    Args:
        path: The JSON file.
        class_names: The names of the classes, the background first; if empty, the background and the file's categories
            in the order of their ids.

    Attributes:
        path: The JSON file.
        files: The name of each image's file, by the image's id.
        class_names: The names of the classes.

    Raises:
        DataError: If it is no COCO file, has a category that is no class, or gives two classes one name.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        document = read_json(path)
        try:
            categories = {item["id"]: str(item["name"]) for item in document["categories"]}
            self.files = {item["id"]: str(item["file_name"]) for item in document["images"]}
            annotations = list(document["annotations"])
        except (KeyError, TypeError):
            raise DataError(
                f"annotation '{path}' is no COCO file: it lacks images, annotations or categories"
            ) from None
        self.path = path
        self.class_names = list(class_names) or ["background", *(categories[key] for key in sorted(categories))]
        reason = why_refused(self.class_names)
        if reason is not None:
            raise DataError(f"annotation '{path}': {reason}, or set `classes`")
        self._indices = {key: _index_of(name, self.class_names, path) for key, name in categories.items()}
        self._by_image: dict[Any, list[Mapping[str, Any]]] = {}
        for item in annotations:
            self._by_image.setdefault(item.get("image_id"), []).append(item)

    def label(self, image_id: Any, shape: tuple[int, int]) -> np.ndarray:
        """Draw the label of an image, H x W uint8, with larger objects below smaller ones and 255 for void.

        Raises:
            DataError: If an annotation cannot be read.
        """
        labels = np.zeros(shape, np.uint8)
        items = sorted(self._by_image.get(image_id, []), key=lambda item: -float(item.get("area") or 0))
        for item in items:
            try:
                index = VOID if item.get("iscrowd") else self._indices[item["category_id"]]
                segmentation = item["segmentation"]
                if isinstance(segmentation, dict):
                    labels[_run_lengths(segmentation, shape)] = index
                    continue
                for polygon in segmentation:
                    points = np.array(polygon, np.float64).reshape(-1, 2).clip(-1e6, 1e6)
                    _draw(labels, "polygon", points, index)
            except (KeyError, TypeError, ValueError, IndexError, OverflowError):
                raise DataError(
                    f"annotation '{self.path}': {item.get('id')} of image {image_id} is neither polygons nor run "
                    "lengths of its size"
                ) from None
        return labels


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return json.loads(read_text(path, _LARGEST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"annotation '{path}' cannot be read ({' '.join(str(error).split())[:150]})") from None


def _draw(labels: np.ndarray, kind: str, points: np.ndarray, index: int) -> None:
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    elif kind == "circle" and len(points) == 2:
        radius = round(float(np.hypot(*(points[1] - points[0]))))
        cv2.circle(labels, tuple(np.rint(points[0]).astype(int).tolist()), min(radius, 10**5), int(index), cv2.FILLED)
        return
    if len(points) >= 3:
        cv2.fillPoly(labels, [np.rint(points).astype(np.int32)], int(index))


def _mask(encoded: Any, path: Path) -> np.ndarray:
    """Decode a mask of LabelMe: a PNG in base 64, as large as the box between the shape's two points."""
    try:
        return decode(base64.b64decode(encoded, validate=True), path) != 0
    except (ValueError, TypeError, DataError):
        raise DataError(f"annotation '{path}' has a mask that is no PNG in base 64: repair it") from None


def _paste(labels: np.ndarray, mask: np.ndarray, points: np.ndarray, index: int) -> None:
    column, row = np.rint(points.min(axis=0)).astype(int)
    top, left = max(row, 0), max(column, 0)
    part = labels[top:, left:]
    mask = mask.reshape(*mask.shape[:2], -1).any(axis=2)[top - row :, left - column :]
    mask = mask[: part.shape[0], : part.shape[1]]
    part[: mask.shape[0], : mask.shape[1]][mask] = index


def _run_lengths(segmentation: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Return the mask that COCO's runs, of 0 and 1 in turn and down the columns, stand for."""
    counts, pixels = segmentation["counts"], shape[0] * shape[1]
    runs = np.array(_decompressed(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    fits = runs.ndim == 1 and runs.size and runs.min() >= 0 and runs.max() <= pixels and runs.sum() == pixels
    if list(segmentation["size"]) != list(shape) or not fits:
        raise ValueError("run lengths do not fit the image")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape[::-1]).T


def _decompressed(text: str) -> list[int]:
    """Return the runs that a string stands for in COCO's own compression.

    A run is stored in groups of five bits, the lowest first. Each group is a character from "0" on, whose sixth bit
    says that another group follows; the highest of the last group's five bits is the sign. From the fourth run on, the
    difference from the run before the last is stored.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 50:
            raise ValueError("not COCO's compression")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _index_of(name: str, class_names: Sequence[str], path: Path) -> int:
    if name in class_names:
        return list(class_names).index(name)
    if name.lower() in ("void", "ignore"):
        return VOID
    raise DataError(
        f"annotation '{path}' has the label '{name}', which is none of {first_few(class_names)}: set `classes`"
    )
