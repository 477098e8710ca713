"""Where the images and labels of a source are: the layouts in which data sets are kept, recognised by their names.

A layout is taken only if it is the only one that fits; what was found is shown. ``images`` and ``labels`` name the
folders where that is not so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fcnlab.core.errors import DataError
from fcnlab.data.decode import EXTENSIONS
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.image_folder import files_by_stem, require_within
from fcnlab.data.sample_names import first_few, natural_key
from fcnlab.data.zarr_images import SUFFIX as ZARR

JSON = ".json"

SOURCE_EXTENSIONS = (*IMAGE_EXTENSIONS, ZARR)
"""The extensions of images, in lower case, also of those that only tiles are cut from."""

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names of folders, in lower case, that hold a split."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
"""The names of folders, in lower case, that hold images."""

LABEL_FOLDERS = (
    *("labels", "label", "masks", "mask", "annotations", "annotation", "gt", "groundtruth", "ground_truth"),
    *("segmentations", "segmentation", "seg", "segmentationclass"),
)
"""The names of folders, in lower case, that hold labels."""

LABEL_SUFFIXES = (
    *("_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "_groundtruth", "_annotation"),
    *("-mask", "-label", "-seg", "-gt"),
)
"""What the names of labels, in lower case, have behind those of their images."""

FOLDER_SUFFIXES = (*LABEL_SUFFIXES, "annot", "_annot", "_annotations", "masks", "labels")
"""What the names of folders of labels, in lower case, have behind those of their images' folders."""


class Folders(NamedTuple):
    """A folder of images with the one of its labels, which may be the same.

    Attributes:
        images: The folder of images.
        labels: The folder of labels.
        split: The split that the folders' names state; None if they state none.
    """

    images: Path
    labels: Path
    split: str | None


class Pair(NamedTuple):
    """An image with the files of its label.

    Attributes:
        name: A name that is unique within its folder: the image's stem.
        image: The image.
        label: Its label; None where there are masks.
        masks: The mask of each class, by the class's name.
        split: The split that the source states.
    """

    name: str
    image: Path
    label: Path | None
    masks: Mapping[str, Path]
    split: str | None


@dataclass
class Layout:
    """What a source holds.

    Attributes:
        pairs: Every image with its label, in natural order within each folder.
        shown: A line that says what was recognised.
        notes: Lines about what was left out.
    """

    pairs: list[Pair]
    shown: str
    notes: list[str] = field(default_factory=list)


def find_folders(source: Path, images: str | None, labels: str | None) -> list[Folders]:
    """Return the folders of images and labels, one pair for each split or a single pair.

    Args:
        source: The source, or the folder that an archive was unpacked into.
        images: The folder of images below ``source``; None looks for one.
        labels: The folder of labels below ``source``; None looks for one.

    Raises:
        DataError: If there is none, or more than one way to read the source.
    """
    if images is not None and labels is not None and (source / images).is_dir() and (source / labels).is_dir():
        return [Folders(source / images, source / labels, None)]
    places = [source, *_folders(source)]
    found = [candidate for place in places for candidate in _candidates(source, place, images, labels)]
    if not found and images is None:  # images and labels side by side, told apart by their names
        inside = [folder for place in places for folder in (place, *_folders(place))]
        found = [[Folders(folder, folder, None)] for folder in inside if _has_suffixed(folder)]
    unique = list({tuple(candidate): candidate for candidate in found}.values())
    if len(unique) > 1:
        ways = "; ".join(_shown(source, candidate) for candidate in unique[:4])
        raise DataError(
            f"source={source} can be read in {len(unique)} ways ({ways}): name the folders, as in "
            f"images={path_below(source, unique[0][0].images)} labels={path_below(source, unique[0][0].labels)}"
        )
    if not unique:
        raise DataError(
            f"source={source}: there is no folder '{images or 'images'}' beside a folder '{labels or 'labels'}' in it, "
            "nor others that are known to hold images and labels: set `images` and `labels` to the folders' names"
        )
    return unique[0]


def find_image_folder(source: Path, images: str | None) -> Path:
    """Return the folder of images whose annotations lie beside them or in a COCO file; ``source`` if there is none.

    Raises:
        DataError: If two folders in the same place are called so.
    """
    if images is not None and (source / images).is_dir():
        return source / images
    for places in ([source], _folders(source)):
        named = [
            path for place in places for path in _folders(place) if path.name.lower() in _names(images, IMAGE_FOLDERS)
        ]
        if len(named) > 1:
            shown = first_few(path_below(source, path) for path in named)
            raise DataError(
                f"source={source} has {len(named)} folders of images ({shown}): set `images` to one of them"
            )
        if named:
            return named[0]
    return source


def has_json(source: Path) -> bool:
    """Whether a source has a JSON file, as annotation tools write, in it or in the folders of the next two levels.

    Hidden files do not count, such as those that macOS writes beside others on a disk of another system.
    """
    found = (path for pattern in ("*", "*/*", "*/*/*") for path in source.glob(pattern) if path.suffix.lower() == JSON)
    return any(not any(part.startswith(".") for part in path.relative_to(source).parts) for path in found)


def split_folders(place: Path) -> list[tuple[Path, str]]:
    """Return the folders in a folder that are called like a split, each with the split: train, val or test."""
    return [(path, split) for path in _folders(place) if (split := _split_of(path)) is not None]


def label_folders(place: Path) -> list[Path]:
    """Return the folders in a folder whose names are known as those of labels."""
    return [path for path in _folders(place) if path.name.lower() in LABEL_FOLDERS]


def pair_files(folders: Folders, home: Path, classes: Sequence[str]) -> tuple[list[Pair], list[str]]:
    """Return every image of a folder with its label.

    Args:
        folders: The folders.
        home: The folder that links must not lead out of.
        classes: The names of the classes, which masks of one class each have behind their names.

    Returns:
        The pairs, and lines about what was recognised.

    Raises:
        DataError: If an image has no label or a label no image, or two labels are of one image and class.
    """
    for folder in (folders.images, folders.labels):
        require_within(folder, home, "source")
    class_folders = _class_folders(folders.labels, classes) if folders.labels != folders.images else {}
    if class_folders:
        return _pair_class_folders(folders, home, class_folders)
    images = files_by_stem(folders.images, SOURCE_EXTENSIONS, home)
    if folders.labels == folders.images:
        images, labels, suffix = _apart(folders, images)
    else:
        labels = files_by_stem(folders.labels, (*EXTENSIONS, ZARR), home)
        suffix = _common_suffix(images, labels)
    if suffix is None:
        masks = _masks_by_class(images, labels, classes)
        if masks is not None:
            pairs = [
                Pair(name, images[name], None, masks[name], folders.split) for name in sorted(images, key=natural_key)
            ]
            return pairs, [f"one mask for each class, as in {next(iter(labels))}"]
    labels = _by_image(labels, suffix)
    _require_partners(folders, images, labels)
    pairs = [Pair(name, images[name], labels[name], {}, folders.split) for name in sorted(images, key=natural_key)]
    return pairs, [f"labels are called like their images with '{suffix}' behind"] if suffix else []


def left_out(source: Path, pairs: Sequence[Pair]) -> str | None:
    """Return a line that names the folders of a source whose images are not read; None if there is none."""
    read = {
        path.parent for pair in pairs for path in (pair.image, pair.label, *pair.masks.values()) if path is not None
    }
    return left_out_files(source, IMAGE_EXTENSIONS, "images", lambda path: path.parent in read)


def left_out_files(source: Path, extensions: Sequence[str], what: str, is_read: Callable[[Path], bool]) -> str | None:
    """Return a line that names the folders of a source in which files are not read; None if there is none.

    Args:
        source: The source.
        extensions: The extensions of the files that count, in lower case.
        what: What the line calls them.
        is_read: Whether a file is read, or is reported elsewhere.
    """
    found = {}
    for folder, below, files in os.walk(source):
        below[:] = [name for name in below if not name.startswith(".")]
        count = sum(
            name.lower().endswith(tuple(extensions)) and not name.startswith(".") and not is_read(Path(folder, name))
            for name in files
        )
        if count:
            found[path_below(source, Path(folder))] = count
    if not found:
        return None
    shown = first_few((f"{folder} ({count})" for folder, count in found.items()), 4)
    return f"{sum(found.values())} {what} lie in folders that are not read, and are left out: {shown}"


def _candidates(source: Path, place: Path, images: str | None, labels: str | None) -> Iterator[list[Folders]]:
    """Yield every way in which a folder, the source or one in it, can be read."""
    if place != source and _split_of(place) and len(_split_siblings(place)) > 1:
        return  # It is one of the splits of the folder that it is in.
    image_names, label_names = _names(images, IMAGE_FOLDERS), _names(labels, LABEL_FOLDERS)
    inside = _folders(place)
    image_folders = [path for path in inside if path.name.lower() in image_names]
    label_folders = [path for path in inside if path.name.lower() in label_names]
    for image in image_folders:
        for label in label_folders:
            splits = _splits(image, lambda folder, label=label: _same_name(folder, label))
            if splits:
                yield splits
            if holds_images(image):
                yield [Folders(image, label, None)]

    def labels_of(split: Path) -> tuple[Path, Path] | None:
        pictures = [path for path in _folders(split) if path.name.lower() in image_names]
        masks = [path for path in _folders(split) if path.name.lower() in label_names]
        return (pictures[0], masks[0]) if len(pictures) == len(masks) == 1 else None

    splits = [
        Folders(*both, _split_of(path)) for path in inside if _split_of(path) and (both := labels_of(path)) is not None
    ]
    if len(splits) > 1:
        yield splits
    for path in inside:  # Carvana's train and train_masks, SegNet's train and trainannot
        if path in image_folders or not holds_images(path):
            continue
        behind = [
            other for other in inside if other.name.lower() in [f"{path.name.lower()}{s}" for s in FOLDER_SUFFIXES]
        ]
        if behind and _split_of(path) == "train":
            yield [
                Folders(one, other, _split_of(one))
                for one in inside
                if _split_of(one) and holds_images(one)
                for other in inside
                if other.name.lower() in [f"{one.name.lower()}{s}" for s in FOLDER_SUFFIXES] and holds_images(other)
            ]


def _split_siblings(place: Path) -> list[Path]:
    """Return the folders beside one that hold a split with its own images."""
    return [path for path in _folders(place.parent) if _split_of(path) and any(_folders(path))]


def _splits(images: Path, partner: Callable[[Path], Path | None]) -> list[Folders]:
    """Return the splits below a folder of images that have a partner below the folder of labels."""
    return [
        Folders(path, other, _split_of(path))
        for path in _folders(images)
        if _split_of(path) and (other := partner(path)) is not None
    ]


def _same_name(folder: Path, beside: Path) -> Path | None:
    return next((path for path in _folders(beside) if path.name.lower() == folder.name.lower()), None)


def _split_of(folder: Path) -> str | None:
    return next((split for split, names in SPLIT_FOLDERS.items() if folder.name.lower() in names), None)


def _names(given: str | None, known: Sequence[str]) -> Sequence[str]:
    return known if given is None else (given.lower(),)


def _folders(place: Path) -> list[Path]:
    """Return the folders in a folder but for hidden ones, sorted by name; none if it is no folder."""
    inside = place.iterdir() if place.is_dir() else ()
    return sorted(path for path in inside if path.is_dir() and not path.name.startswith("."))


def holds_images(folder: Path) -> bool:
    """Whether a folder holds a file with an image's extension."""
    return holds(folder, SOURCE_EXTENSIONS)


def holds(folder: Path, extensions: Sequence[str]) -> bool:
    """Whether a folder holds a file with one of some extensions, in lower case; its hidden files do not count."""
    return any(path.suffix.lower() in extensions and not path.name.startswith(".") for path in folder.iterdir())


def _has_suffixed(folder: Path) -> bool:
    """Whether some file of a folder is called like another one with a label's suffix behind."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    stems = {path.stem for path in files if path.suffix.lower() in SOURCE_EXTENSIONS}
    return any(
        (base := _without(stem, suffix)) != stem and base in stems for stem in stems for suffix in LABEL_SUFFIXES
    )


def _apart(folders: Folders, files: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path], str]:
    """Tell labels from images in one folder by the suffix of their names."""
    fitting = {}
    for suffix in LABEL_SUFFIXES:
        labels = {stem for stem in files if _without(stem, suffix) != stem and _without(stem, suffix) in files}
        if labels:
            fitting[suffix] = labels
    if len(fitting) != 1:
        raise DataError(
            f"folder '{folders.images}' holds images and labels whose names end in {first_few(fitting)}: move the "
            "labels to a folder of their own, and set `labels` to its name"
        )
    ((suffix, labels),) = fitting.items()
    images = {stem: path for stem, path in files.items() if stem not in labels}
    return images, {stem: path for stem, path in files.items() if stem in labels}, suffix


def _common_suffix(images: Mapping[str, Path], labels: Mapping[str, Path]) -> str | None:
    """Return what all labels have behind their images' names: nothing, or one suffix; None if neither is so."""
    if images.keys() & labels.keys():
        return ""
    for suffix in LABEL_SUFFIXES:
        if all((base := _without(stem, suffix)) != stem and base in images for stem in labels):
            return suffix
    return None


def _by_image(labels: Mapping[str, Path], suffix: str | None) -> dict[str, Path]:
    """Return labels by the names of their images, which have no suffix.

    Raises:
        DataError: If two are called like the label of one image, with capitals that differ.
    """
    found: dict[str, Path] = {}
    for stem, path in labels.items():
        other = found.setdefault(_without(stem, suffix or ""), path)
        if other != path:
            raise DataError(f"'{other}' and '{path}' are both called like the label of one image: remove one")
    return found


def _without(stem: str, suffix: str) -> str:
    return stem[: -len(suffix)] if suffix and stem.lower().endswith(suffix) else stem


def _class_folders(labels: Path, classes: Sequence[str]) -> dict[str, Path]:
    """Return the folders of masks by class, where the folder of labels has one for each class."""
    found = {path.name: path for path in _folders(labels) if path.name in classes}
    return found if found and not holds_images(labels) else {}


def _pair_class_folders(folders: Folders, home: Path, by_class: Mapping[str, Path]) -> tuple[list[Pair], list[str]]:
    images = files_by_stem(folders.images, SOURCE_EXTENSIONS, home)
    masks: dict[str, dict[str, Path]] = {name: {} for name in images}
    for name, folder in by_class.items():
        require_within(folder, home, "source")
        files = files_by_stem(folder, (*EXTENSIONS, ZARR), home)
        for image, path in _by_image(files, _common_suffix(images, files) or "").items():
            if image not in masks:
                raise DataError(
                    f"mask '{path}' has no image of its name in '{folders.images}': add it, or remove the mask"
                )
            masks[image][name] = path
    bare = [name for name in images if not masks[name]]
    if bare:
        raise DataError(
            f"image '{images[bare[0]]}' has no mask in any of {first_few(by_class)} (and {len(bare) - 1} more like "
            "it): add one, which may be black"
        )
    pairs = [Pair(name, images[name], None, masks[name], folders.split) for name in sorted(images, key=natural_key)]
    return pairs, [f"one folder of masks for each of {', '.join(by_class)}"]


def _masks_by_class(
    images: Mapping[str, Path], labels: Mapping[str, Path], classes: Sequence[str]
) -> dict[str, dict[str, Path]] | None:
    """Return the masks of each image by class, where labels are called like images with a class behind; else None."""
    found: dict[str, dict[str, Path]] = {name: {} for name in images}
    by_length = sorted(classes, key=len, reverse=True)  # so that "dark cell" is not taken for "cell"
    for stem, path in labels.items():
        pairs = [
            (base, name)
            for name in by_length
            for mark in ("_", "-", ".")
            if stem.endswith(f"{mark}{name}") and (base := stem[: -len(name) - 1]) in found
        ]
        if not pairs:
            return None
        if len(pairs) > 1:
            raise DataError(
                f"mask '{path}' can be that of '{pairs[0][0]}' for the class '{pairs[0][1]}' and that of "
                f"'{pairs[1][0]}' for '{pairs[1][1]}': keep masks in a folder for each class, as in "
                f"{path.parent.name}/{pairs[0][1]}"
            )
        base, name = pairs[0]
        if name in found[base]:
            raise DataError(
                f"'{found[base][name]}' and '{path}' are both the mask of image '{base}' for the class '{name}': "
                "remove one"
            )
        found[base][name] = path
    return found if all(found.values()) else None


def _require_partners(folders: Folders, images: Mapping[str, Path], labels: Mapping[str, Path]) -> None:
    alone = sorted(images.keys() ^ labels.keys(), key=natural_key)
    if alone:
        what = "image" if alone[0] in images else "label"
        raise DataError(
            f"{len(alone)} images and labels have no partner, such as '{alone[0]}', a {what} alone in "
            f"'{folders.images if what == 'image' else folders.labels}': each image needs a label of the same name, "
            "and each label an image"
        )


def _shown(source: Path, candidate: Sequence[Folders]) -> str:
    return " and ".join(
        f"{path_below(source, item.images)} with {path_below(source, item.labels)}" for item in candidate
    )


def path_below(source: Path, folder: Path) -> str:
    """Return the path of a folder as it is written from the source on."""
    return folder.relative_to(source).as_posix()
