"""LabelMe's JSON files: the shapes of one image each, and sometimes the image itself."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import shown
from fcnlab.data.decode import decode
from fcnlab.preparation import shapes
from fcnlab.preparation.json_documents import index_of, points_of, read_json, stated_size

_FEWEST = {
    "polygon": 3,
    "oriented_rectangle": 3,
    "rectangle": 2,
    "circle": 2,
    "line": 2,
    "linestrip": 2,
    "point": 1,
    "points": 1,
    "mask": 1,
}
"""The kinds of shapes, each with the number of points that it needs at least."""


class Shape(NamedTuple):
    """A shape of LabelMe's.

    Attributes:
        index: Its class index.
        kind: What LabelMe calls it, such as ``polygon``.
        points: N x 2, x before y, in pixels.
        mask: The pixels of a ``mask``.
    """

    index: int
    kind: str
    points: np.ndarray
    mask: np.ndarray | None = None


@dataclass
class Annotation:
    """What a LabelMe file says of its image.

    Attributes:
        path: The file.
        image_name: The name of the image's file, as the annotating machine wrote it; None if it is not stated.
        size: The height and width of the image when it was annotated; None if they are not stated.
        shapes: The shapes, in their order.
        kinds: How many shapes there are of each kind.
        without_area: The kinds and labels of shapes with too few points to be drawn.
        has_image: Whether the file holds the image.
    """

    path: Path
    image_name: str | None
    size: tuple[int, int] | None
    shapes: list[Shape]
    kinds: Counter[str] = field(default_factory=Counter)
    without_area: list[str] = field(default_factory=list)
    has_image: bool = False

    def label(self, shape: tuple[int, int], scale: bool = False) -> np.ndarray:
        """Draw the shapes, later ones above earlier ones.

        Args:
            shape: The height and width of the image.
            scale: Whether the shapes are scaled from the size that the file states.

        Returns:
            Class indices, H x W uint8, with 255 for void.
        """
        labels = np.zeros(shape, np.uint8)
        size = shape if self.size is None or not scale else self.size
        for item in self.shapes:
            _draw(labels, item, size)
        return labels


def read(path: Path, class_names: Sequence[str]) -> Annotation:
    """Read a LabelMe file.

    Args:
        path: The JSON file.
        class_names: The names of the classes, the background first. The labels ``void``, ``ignore`` and ``__ignore__``
            are void.

    Raises:
        DataError: If the file is not one of LabelMe's, or has a shape that cannot be drawn or whose label is no class.
    """
    document = read_json(path)
    items = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise DataError(f"annotation '{path}' is no LabelMe file: it has no shapes")
    name = document.get("imagePath")
    found = Annotation(
        path,
        name if isinstance(name, str) and name else None,
        stated_size(document.get("imageHeight"), document.get("imageWidth")),
        [],
        has_image=bool(document.get("imageData")),
    )
    for item in items:
        _add(found, item, class_names)
    return found


def is_labelme(path: Path) -> bool:
    """Whether a JSON file is one of LabelMe's."""
    try:
        document = read_json(path)
    except DataError:
        return False
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


class ImageInside(NamedTuple):
    """An image that a LabelMe file holds, with as much of a `Path` as it takes to read it.

    Attributes:
        document: The LabelMe file.
    """

    document: Path

    @property
    def suffix(self) -> str:
        """The suffix of an image whose content says what it is."""
        return ""

    def read_bytes(self) -> bytes:
        """Return the image file.

        Raises:
            DataError: If the document holds none.
        """
        document = read_json(self.document)
        data = document.get("imageData") if isinstance(document, dict) else None
        try:
            return base64.b64decode(data, validate=True)
        except (ValueError, TypeError):
            raise DataError(
                f"annotation '{self.document}' holds no image in base 64: add its image beside it"
            ) from None

    def __str__(self) -> str:
        return f"{self.document}, imageData"


def _add(found: Annotation, item: Any, class_names: Sequence[str]) -> None:
    """Add a shape of a document to what was found."""
    path = found.path
    try:
        name, kind = item["label"], item.get("shape_type") or "polygon"
        points = points_of(item["points"])
        if not isinstance(name, (str, int)):
            raise ValueError("label")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise DataError(f"annotation '{path}' has a shape without a label or points: repair it") from None
    if not isinstance(kind, str) or kind not in _FEWEST:
        raise DataError(
            f"annotation '{path}' has a shape '{shown(name)}' of the type {shown(kind)}, which is none of "
            f"{', '.join(_FEWEST)}: make it a polygon, or remove it"
        )
    index = index_of(str(name), class_names, path)
    if len(points) < _FEWEST[kind]:
        found.without_area.append(f"{kind} '{shown(name)}'")
        return
    mask = _mask(item.get("mask"), path) if kind == "mask" else None
    found.kinds[kind] += 1
    found.shapes.append(Shape(index, kind, points, mask))


def _draw(labels: np.ndarray, item: Shape, size: tuple[int, int]) -> None:
    """Draw a shape that was made for an image of a given height and width."""
    points = item.points * np.array([labels.shape[1] / size[1], labels.shape[0] / size[0]])
    if item.mask is not None:
        shapes.paste(labels, item.mask, item.points, item.index, size)
    elif item.kind == "circle":
        shapes.circle(labels, points, item.index)
    elif item.kind == "rectangle" and len(points) == 2:
        shapes.rectangle(labels, points, item.index)
    elif item.kind in ("line", "linestrip"):
        shapes.line(labels, points, item.index)
    elif item.kind in ("point", "points"):
        for point in points:
            shapes.spot(labels, point, item.index)
    else:
        shapes.polygon(labels, points, item.index)


def _mask(encoded: Any, path: Path) -> np.ndarray:
    """Decode a mask of LabelMe: a PNG in base 64, as large as the box between the shape's two points."""
    try:
        return decode(base64.b64decode(encoded, validate=True), path) != 0
    except (ValueError, TypeError, DataError):
        raise DataError(f"annotation '{path}' has a mask that is no PNG in base 64: repair it") from None
