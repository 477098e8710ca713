"""COCO files: polygons and run lengths of all images of a data set in one JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import shown
from fcnlab.data.sample_names import first_few
from fcnlab.metrics.names import why_refused
from fcnlab.preparation import shapes
from fcnlab.preparation.json_documents import VOID, index_of, points_of, read_json, stated_size

BOXES = ("refuse", "area", "void", "none")
"""What becomes of an annotation that has a box and no polygon: an error, the box as the object, void, or nothing."""

_BACKGROUND = ("background", "_background_", "__background__")


class Annotated(NamedTuple):
    """An object of an image.

    Attributes:
        index: Its class index; 255 for a crowd, which is void.
        area: Its area in pixels, as the file states it; if it states none, or 0, what is drawn says it.
        polygons: N x 2 points each.
        runs: Run lengths, as the file holds them; None without.
        box: Its left, top, width and height, in pixels; None if the file states none.
        shown: What a message calls it.
    """

    index: int
    area: float
    polygons: list[np.ndarray]
    runs: Mapping[str, Any] | None
    box: np.ndarray | None
    shown: str


class Coco:
    """A COCO file, every annotation of which was looked at.

    Args:
        path: The JSON file.
        class_names: The names of the classes, the background first; if empty, the background and the file's categories
            in the order of their ids.
        boxes: What becomes of an annotation that has a box and no polygon, one of `BOXES`.

    Attributes:
        path: The JSON file.
        files: The name of each image's file, by the image's id, as text.
        sizes: The height and width that the file states for an image; None if it states none.
        class_names: The names of the classes.
        notes: Lines that say what was left out or is unusual.

    Raises:
        DataError: If it is no COCO file, has a category that is no class, gives two classes one name, or has an
            annotation that cannot be drawn.
    """

    def __init__(self, path: Path, class_names: Sequence[str], boxes: str = "refuse") -> None:
        document = read_json(path)
        self.path, self.notes = path, []
        self._boxes = boxes
        if not isinstance(document, dict) or not all(
            isinstance(document.get(key), list) and all(isinstance(item, dict) for item in document[key])
            for key in ("images", "annotations", "categories")
        ):
            raise DataError(
                f"annotation '{path}' is no COCO file: it lacks images, annotations or categories, each a list of "
                "objects"
            )
        categories = self._by_id(document["categories"], "name", "category")
        self._read_images(document["images"])
        self.class_names = list(class_names) or _classes_of(categories)
        reason = why_refused(self.class_names) or (
            f"it has {len(self.class_names)} classes, and at most 254 are taken"
            if len(self.class_names) > 254
            else None
        )
        if reason is not None:
            raise DataError(f"annotation '{path}': {reason}, or set `classes`")
        self._objects: dict[str, list[Annotated]] = {}
        self._read_annotations(document["annotations"], categories)

    def label(self, image_id: Any, shape: tuple[int, int], scale: bool = False) -> np.ndarray:
        """Draw the label of an image, H x W uint8, with larger objects below smaller ones and 255 for void.

        Args:
            image_id: The image's id.
            shape: The height and width of the image.
            scale: Whether the objects are scaled from the size that the file states.

        Raises:
            DataError: If run lengths do not have the image's size.
        """
        labels, image_id = np.zeros(shape, np.uint8), str(image_id)
        size = self.sizes.get(image_id) if scale else None
        factor = np.array([1.0, 1.0]) if size is None else np.array([shape[1] / size[1], shape[0] / size[0]])
        for item in sorted(self._objects.get(image_id, []), key=lambda item: -item.area):
            if item.runs is not None:
                labels[_runs_of(item, shape, size, self.path)] = item.index
            for points in item.polygons:
                shapes.polygon(labels, points * factor, item.index)
            if item.box is not None:
                corners = np.array([item.box[:2], item.box[:2] + item.box[2:] - 1]) * factor
                shapes.rectangle(labels, corners, VOID if self._boxes == "void" else item.index)
        return labels

    @property
    def without_objects(self) -> list[str]:
        """The names of the images that have no annotation, whose labels are background alone."""
        return [name for key, name in self.files.items() if not self._objects.get(key)]

    def _by_id(self, items: list[dict[str, Any]], name: str, kind: str) -> dict[str, str]:
        """Return the name of each item by its id, as text."""
        found: dict[str, str] = {}
        for item in items:
            key = _id(item.get("id"))
            if key is None or not isinstance(item.get(name), (str, int)):
                raise DataError(
                    f"annotation '{self.path}' is no COCO file: it has a {kind} without an id or a {name} "
                    f"({shown(item)})"
                )
            if key in found:
                raise DataError(
                    f"annotation '{self.path}': two {kind.replace('y', 'ie')}s have the id {shown(key)}, "
                    f"'{shown(found[key])}' and '{shown(item[name])}': give each its own"
                )
            found[key] = str(item[name])
        return found

    def _read_images(self, items: list[dict[str, Any]]) -> None:
        self.files = self._by_id(items, "file_name", "image")
        twice = [name for name, count in Counter(self.files.values()).items() if count > 1]
        if twice:
            raise DataError(
                f"annotation '{self.path}' lists image '{shown(twice[0])}' {self._times(twice[0])} times: keep one, "
                "with the annotations of all"
            )
        self.sizes = {_id(item["id"]): stated_size(item.get("height"), item.get("width")) for item in items}

    def _times(self, name: str) -> int:
        return list(self.files.values()).count(name)

    def _read_annotations(self, items: list[dict[str, Any]], categories: Mapping[str, str]) -> None:
        used: Counter[str] = Counter()
        crowds, short, boxed = 0, [], []
        for item in items:
            what = f"annotation {shown(item.get('id'))}"
            image, category = _id(item.get("image_id")), _id(item.get("category_id"))
            if image not in self.files:
                raise self._wrong(what, f"is of image {shown(item.get('image_id'))}, which the file does not list")
            if category not in categories:
                raise self._wrong(
                    what, f"is of category {shown(item.get('category_id'))}, which the file does not list"
                )
            what = f"{what} of '{shown(self.files[image])}'"
            used[category] += 1
            index = index_of(self._class_name(categories[category]), self.class_names, self.path)
            found = self._parsed(item, what, VOID if item.get("iscrowd") else index)
            crowds += bool(item.get("iscrowd"))
            segmentation = item.get("segmentation")
            has_area = found.runs is not None or bool(found.polygons)
            if isinstance(segmentation, list) and len(found.polygons) < len(segmentation) and has_area:
                short.append(what)
            if not has_area:
                boxed.append(what)
                self._require_decision(what, found, len(items))
            keeps_box = not has_area and self._boxes in ("area", "void")
            self._objects.setdefault(image, []).append(found if keeps_box else found._replace(box=None))
        self._note(used, categories, crowds, short, boxed)

    def _parsed(self, item: Mapping[str, Any], what: str, index: int) -> Annotated:
        """Return an annotation whose numbers are known to be numbers."""
        segmentation, area = item.get("segmentation"), item.get("area") or 0
        try:
            if not isinstance(area, (int, float)) or not math.isfinite(area):
                raise ValueError("area")
            runs = segmentation if isinstance(segmentation, dict) else None
            if runs is not None and not {"counts", "size"} <= runs.keys():
                raise ValueError("run lengths")
            polygons = []
            if segmentation is not None and runs is None:
                if not isinstance(segmentation, list):
                    raise ValueError("segmentation")
                # A single polygon without the list around it is common, too.
                nested = segmentation if all(isinstance(part, list) for part in segmentation) else [segmentation]
                polygons = [points_of(part) for part in nested if part]
            box = item.get("bbox")
            corner = np.array(box, np.float64) if box else None
            if corner is not None and (corner.shape != (4,) or not np.isfinite(corner).all()):
                raise ValueError("box")
            corner = None if corner is None else corner.clip(-1e6, 1e6)
            whole = [points for points in polygons if len(points) >= 3]
            if area <= 0:  # Many tools write none, and then the order in the file would decide what lies above.
                area = _area_of(whole, runs, corner)
        except (TypeError, ValueError, OverflowError):
            raise self._wrong(
                what, "is neither polygons nor run lengths of its size, with a finite area and box"
            ) from None
        return Annotated(index, float(area), whole, runs, corner, what)

    def _require_decision(self, what: str, found: Annotated, total: int) -> None:
        """Refuse an annotation without an area, unless it was said what becomes of it."""
        if self._boxes == "none" or (self._boxes != "refuse" and found.box is not None):
            return
        if found.box is None:
            raise self._wrong(
                what, "has no polygon of three points, no run lengths and no box: remove it, or boxes=none"
            )
        raise self._wrong(
            what,
            f"has a box but no polygon of three points (one of {total:,}): boxes=area takes its box as the object, "
            "boxes=void makes the box void, boxes=none leaves such annotations out",
        )

    def _class_name(self, category: str) -> str:
        """Return the class of a category; one that is called background is the first class."""
        is_background = category.lower() in _BACKGROUND and category not in self.class_names
        return self.class_names[0] if is_background else category

    def _note(
        self, used: Counter[str], categories: Mapping[str, str], crowds: int, short: list[str], boxed: list[str]
    ) -> None:
        """Write down what was left out or is unusual."""
        unused = [name for key, name in categories.items() if not used[key] and name.lower() not in _BACKGROUND]
        if unused:
            self.notes.append(f"{len(unused)} categories have no annotation: {first_few(unused)}")
        if crowds:
            self.notes.append(f"{crowds} annotations are of crowds (iscrowd), which become void")
        if short:
            self.notes.append(f"polygons of fewer than three points were left out of {len(short)}, such as {short[0]}")
        if boxed:
            became = {"area": "their boxes are drawn", "void": "their boxes become void", "none": "they are left out"}
            self.notes.append(f"{len(boxed)} annotations have no polygon ({boxed[0]}): {became[self._boxes]}")
        if self.without_objects:
            self.notes.append(
                f"{len(self.without_objects)} images have no annotation, so that their labels are background alone: "
                f"{first_few(self.without_objects)}"
            )
        if self.files and len(self.without_objects) == len(self.files):
            raise DataError(
                f"annotation '{self.path}' has no annotation of any of its {len(self.files)} images, whose labels "
                "would be background alone: is it the right file?"
            )

    def _wrong(self, what: str, reason: str) -> DataError:
        return DataError(f"annotation '{self.path}': {what} {reason}")


def _id(value: Any) -> str | None:
    """Return an id as text, under which 1, 1.0 and "1" are one; None for what is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None


def _classes_of(categories: Mapping[str, str]) -> list[str]:
    """Return the background and the categories in the order of their ids."""
    numbers = {key: int(key) for key in categories if key.isdecimal() and len(key) < 20}
    ordered = sorted(categories, key=lambda key: (key not in numbers, numbers.get(key, 0), key))
    return ["background", *(categories[key] for key in ordered if categories[key].lower() not in _BACKGROUND)]


def _runs_of(item: Annotated, shape: tuple[int, int], size: tuple[int, int] | None, path: Path) -> np.ndarray:
    """Return the mask of run lengths, H x W bool, scaled from another size if one is given."""
    try:
        mask = _run_lengths(item.runs, size or shape)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(
            f"annotation '{path}': {item.shown} is neither polygons nor run lengths of its size ({shape[1]} x "
            f"{shape[0]})"
        ) from None
    if size is None or size == shape:
        return mask
    return mask[np.ix_(*shapes.nearest(shape, size))]


def _area_of(polygons: Sequence[np.ndarray], runs: Mapping[str, Any] | None, box: np.ndarray | None) -> float:
    """Return the area in pixels of what is drawn for an annotation: its polygons, its runs, or else its box."""
    if runs is not None:
        return float(_runs_in(runs)[1::2].sum())
    if polygons:
        return float(sum(cv2.contourArea(points.astype(np.float32)) for points in polygons))
    return 0.0 if box is None else float(abs(box[2] * box[3]))


def _runs_in(segmentation: Mapping[str, Any]) -> np.ndarray:
    """Return the run lengths of a segmentation, int64, of 0 and 1 in turn."""
    counts = segmentation["counts"]
    return np.array(_decompressed(counts) if isinstance(counts, str) else counts, dtype=np.int64)


def _run_lengths(segmentation: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Return the mask that COCO's runs, of 0 and 1 in turn and down the columns, stand for."""
    runs, pixels = _runs_in(segmentation), shape[0] * shape[1]
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
