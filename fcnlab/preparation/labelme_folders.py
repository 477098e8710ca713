"""Images that LabelMe annotated, as they are found in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import shown
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.image_folder import files_by_stem, require_within
from fcnlab.data.sample_names import natural_key
from fcnlab.preparation import labelme, layouts
from fcnlab.preparation.annotated_images import Annotated, Originals, given
from fcnlab.preparation.json_documents import is_file
from fcnlab.preparation.labelme import ImageInside

_LOOKED_AT = 20  # How many JSON files are opened to find out whether they are LabelMe's.


def documents_of(config: PrepareConfig, folder: Path) -> tuple[Path, Path, dict[str, Path]] | None:
    """Return the folders of images and of LabelMe files, and these by stem; None if there are none."""
    if config.images is None and config.labels is None and not layouts.has_json(folder):
        return None
    images = layouts.find_image_folder(folder, config.images)
    beside = [path for path in layouts.label_folders(images.parent) if path != images]
    for place in [folder / config.labels] if config.labels is not None else [images, *beside]:
        if not place.is_dir():
            continue
        if not layouts.holds(place, (layouts.JSON,)):
            continue
        found = dict(files_by_stem(place, (layouts.JSON,)))
        if not any(labelme.is_labelme(path) for path in list(found.values())[:_LOOKED_AT]):
            continue
        pictures = [path for path in beside if layouts.holds_images(path)]
        if pictures and config.labels is None:
            raise DataError(
                f"source={config.source} has LabelMe files in '{layouts.path_below(folder, place)}' and labels as "
                f"pictures in '{layouts.path_below(folder, pictures[0])}': set `labels` to the folder that counts"
            )
        return images, place, found
    return None


def find_in(
    config: PrepareConfig, folder: Path, images_folder: Path, place: Path, documents: Mapping[str, Path]
) -> tuple[list[Annotated], Originals]:
    """Return the images that LabelMe annotated."""
    if len(config.classes) < 2:
        raise DataError("classes: name them, the background first, as in classes=[background,cell]")
    home = folder.resolve()
    for path in (images_folder, place, *documents.values()):
        require_within(path, home, "source")
    images = (
        dict(files_by_stem(images_folder, IMAGE_EXTENSIONS, home))
        if layouts.holds(images_folder, IMAGE_EXTENSIONS)
        else {}
    )
    found = Originals([], list(config.classes))
    items, inside, short = [], [], []
    document_of: dict[Path, Path] = {}  # by the image, without links and ".." on the way
    for stem in sorted(documents, key=natural_key):
        path = documents[stem]
        annotation = labelme.read(path, config.classes)
        image = _labelme_image(annotation, images, home)
        if image is None and not annotation.has_image:
            found.warnings.append(f"annotation '{path}' has no image, and is left out")
            continue
        if image is None:
            inside.append(path)
        elif (other := document_of.setdefault(image.resolve(), path)) != path:
            raise DataError(
                f"annotations '{other}' and '{path}' are both of the image '{image}': keep one, with the shapes of both"
            )
        short += [f"{what} in '{path.name}'" for what in annotation.without_area]
        draw = partial(_labelme_label, path, tuple(config.classes))
        size = annotation.size
        items.append(Annotated(stem, image or ImageInside(path), draw, partial(given, size), tool_turns=True))
    alone = sorted(
        (path for path in images.values() if path.resolve() not in document_of), key=lambda path: natural_key(path.stem)
    )
    if alone:
        raise DataError(
            f"source={config.source}: image '{alone[0]}' has no LabelMe file of its name (and {len(alone) - 1} more "
            "like it): annotate it, or move it elsewhere"
        )
    if not items:
        raise DataError(f"source={config.source}: no LabelMe file in '{place}' has an image")
    if inside:
        found.notes.append(f"{len(inside)} images are taken out of their LabelMe files, such as '{inside[0].name}'")
    read = {path.resolve() for path in documents.values()} | document_of.keys()
    for extensions, what in (((layouts.JSON,), "JSON files"), (IMAGE_EXTENSIONS, "images")):
        line = layouts.left_out_files(folder, extensions, what, lambda path: path.resolve() in read)
        found.warnings += [line] if line else []
    if short:
        found.warnings.append(f"{len(short)} shapes have too few points to be drawn, such as a {short[0]}; left out")
    found.meaning = [(name, name) for name in config.classes] + [("void, ignore, __ignore__", "void")]
    return items, found


def _labelme_image(annotation: labelme.Annotation, images: Mapping[str, Path], home: Path) -> Path | None:
    """Return the image of a LabelMe file: the one of its own name, or the one that it names.

    Raises:
        DataError: If both are there and differ, or the one that it names lies out of the source.
    """
    own = images.get(annotation.path.stem)
    if annotation.image_name is None:
        return own
    written = PurePosixPath(annotation.image_name.replace("\\", "/"))
    named = annotation.path.parent / written
    if named.suffix.lower() not in IMAGE_EXTENSIONS or not is_file(named):
        named = images.get(written.stem)
    if named is None or (own is not None and named.name == own.name):
        return own
    require_within(named, home, "source")
    if own is not None:
        raise DataError(
            f"annotation '{annotation.path}' names the image '{shown(annotation.image_name)}', and '{own.name}' has "
            "its own name: remove one"
        )
    return named


def _labelme_label(path: Path, classes: Sequence[str], shape: tuple[int, int], scale: bool) -> np.ndarray:
    return labelme.read(path, classes).label(shape, scale)
