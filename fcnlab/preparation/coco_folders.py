"""Images that a COCO file annotates, or one for each split, as they are found in a folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import shown
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.image_folder import files_by_stem, require_file, require_within
from fcnlab.data.sample_names import first_few, natural_key
from fcnlab.preparation import layouts
from fcnlab.preparation.annotated_images import Annotated, Originals, given
from fcnlab.preparation.coco import Coco
from fcnlab.preparation.image_names import require_unique, unique_names, unique_stems
from fcnlab.preparation.json_documents import is_file

EXPORTED = "_annotations.coco.json"
"""The name of the COCO file that Roboflow writes into the folder of each split, beside the images."""


class _Part(NamedTuple):
    """A COCO file with the folder of its images.

    Attributes:
        path: The file.
        place: The folder that the images' names are looked for in, before the source.
        split: The split that the folder's name states; None if it states none.
    """

    path: Path
    place: Path
    split: str | None


def has_export(config: PrepareConfig, folder: Path) -> bool:
    """Whether a source has a COCO file of Roboflow's name in the folders of its splits, and no other labels are named.

    Raises:
        DataError: If these folders hold labels as pictures, too.
    """
    found = [] if config.labels is not None else _in_split_folders(EXPORTED, folder, config.images)
    for part in found:
        pictures = [path for path in layouts.label_folders(part.path.parent) if layouts.holds_images(path)]
        if pictures:
            raise DataError(
                f"source={config.source} has the COCO file '{layouts.path_below(folder, part.path)}' and labels as "
                f"pictures in '{layouts.path_below(folder, pictures[0])}': set `annotations` or `labels` to what counts"
            )
    return bool(found)


def find(config: PrepareConfig, folder: Path) -> tuple[list[Annotated], Originals]:
    """Return the images of a COCO file, or of one for each split.

    Raises:
        DataError: If a file or an image of it is missing or wrong, or the files of two splits have other classes.
    """
    home = folder.resolve()
    parts = _parts(config, folder)
    read = [(part, Coco(part.path, config.classes, config.boxes)) for part in parts]
    classes = read[0][1].class_names
    for part, coco in read[1:]:
        if coco.class_names != classes:
            union = list(dict.fromkeys(name for _, one in read for name in one.class_names))
            raise DataError(
                f"annotations '{read[0][0].path}' and '{part.path}' have other classes, {first_few(classes)} and "
                f"{first_few(coco.class_names)}: set `classes`, as in classes=[{','.join(union)}]"
            )
    found = Originals([], classes)
    items: list[Annotated] = []
    listed: set[Path] = set()
    for part, coco in read:
        split = part.split if len(parts) > 1 else None
        items += _images_of(coco, part.place, folder, home, split, listed)
        found.warnings += [line for line in coco.notes if line not in found.warnings]
        others = _not_listed(part.place, listed)
        if others:
            found.warnings.append(
                f"{len(others)} images in '{part.place}' are not in '{part.path.name}', and are left out: "
                f"{first_few(other.name for other in others)}"
            )
    if len(parts) > 1:
        names = unique_names([item.name for item in items], [item.split for item in items])
        items = [replace(item, name=name) for item, name in zip(items, names, strict=True)]
        require_unique([item.name for item in items], config.source)
        shown_parts = ", ".join(f"{layouts.path_below(folder, part.path)} ({part.split})" for part in parts)
        found.notes.append(f"the source is split already: {shown_parts}")
    places = {part.place for part in parts}
    line = layouts.left_out_files(
        folder, IMAGE_EXTENSIONS, "images", lambda path: path.parent in places or path.resolve() in listed
    )
    found.warnings += [line] if line else []
    found.meaning = [(name, name) for name in classes] + [("crowds (iscrowd)", "void")]
    return items, found


def _parts(config: PrepareConfig, folder: Path) -> list[_Part]:
    """Return the COCO file that is named, or the one of its name in the folder of each split.

    Raises:
        DataError: If there is none, or it is a link out of the source.
    """
    named = Path(config.annotations or EXPORTED)
    try:
        path = named.expanduser()
        if config.annotations is not None:
            inside = folder / path
            if not path.exists() and inside.exists():
                require_within(inside, folder.resolve(), "source")
                path = inside
            if path.exists():
                return [_Part(path, layouts.find_image_folder(folder, config.images), None)]
        parts = _in_split_folders(config.annotations or EXPORTED, folder, config.images)
    except (OSError, ValueError, RuntimeError):  # too long a name, a null byte, or the home of an unknown user
        parts = []
    if not parts:
        raise DataError(
            f"annotations={shown(config.annotations)}: there is no such file, neither here nor in source="
            f"{config.source} nor in folders of its splits, such as train: give the path of a COCO file"
        )
    for part in parts:
        require_within(part.path, folder.resolve(), "source")
    return parts


def _in_split_folders(name: str, folder: Path, images: str | None) -> list[_Part]:
    """Return the files of a name that the folders of splits in a source hold."""
    return [
        _Part(path, layouts.find_image_folder(place, images), split)
        for place, split in layouts.split_folders(folder)
        if is_file(path := place / name)
    ]


def _images_of(
    coco: Coco, place: Path, folder: Path, home: Path, split: str | None, listed: set[Path]
) -> list[Annotated]:
    """Return the images of a COCO file in natural order, and add their files to those that are listed.

    Raises:
        DataError: If there is none, or one is missing, leads elsewhere, or is listed already.
    """
    images = {key: _coco_image(coco, name, place, folder, home) for key, name in coco.files.items()}
    if not images:
        raise DataError(f"annotation '{coco.path}': it lists no image")
    for image in images.values():
        if image.resolve() in listed:
            raise DataError(f"annotation '{coco.path}': two of its images are '{image}': give each a file of its own")
        listed.add(image.resolve())
    names = unique_stems([(key, PurePosixPath(coco.files[key].replace("\\", "/"))) for key in images])
    items = [
        Annotated(names[key], image, partial(coco.label, key), partial(given, coco.sizes[key]), split)
        for key, image in images.items()
    ]
    return sorted(items, key=lambda item: natural_key(item.name))


def _not_listed(place: Path, listed: set[Path]) -> list[Path]:
    """Return the images in a folder that are not listed."""
    if not layouts.holds(place, IMAGE_EXTENSIONS):
        return []
    return [path for path in files_by_stem(place, IMAGE_EXTENSIONS).values() if path.resolve() not in listed]


def _coco_image(coco: Coco, name: str, place: Path, folder: Path, home: Path) -> Path:
    """Return the file of an image that a COCO file lists, which lies in the source.

    Raises:
        DataError: If it is not there, or leads elsewhere.
    """
    written = PurePosixPath(name.replace("\\", "/"))
    if ".." in written.parts or not written.name or len(name) > 4096 or "\0" in name:
        raise DataError(f"annotation '{coco.path}': image '{shown(name)}' is no file below a folder")
    inside = PurePosixPath(*written.parts[1:]) if written.is_absolute() else written
    places = [place / inside, folder / inside, place / written.name, folder / written.name]
    image = next((path for path in places if is_file(path)), None)
    if image is None:
        raise DataError(f"annotation '{coco.path}': there is no image '{places[0]}'")
    require_within(image, home, "source")
    require_file(image)
    if image.suffix.lower() not in IMAGE_EXTENSIONS:
        raise DataError(f"annotation '{coco.path}': image '{image}' is none of {', '.join(IMAGE_EXTENSIONS)}")
    return image
