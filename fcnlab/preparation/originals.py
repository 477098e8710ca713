"""A researcher's own images, each with a way to read its label, as they are found in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.core.foreign_files import shown
from fcnlab.data import image_files
from fcnlab.data.channels import in_bits
from fcnlab.data.dataset import SPLITS, Dataset
from fcnlab.data.decode import JPEG_EXTENSIONS
from fcnlab.data.image_files import IMAGE_EXTENSIONS, Page
from fcnlab.data.image_folder import files_by_stem, require_file, require_within
from fcnlab.data.label_files import read_label
from fcnlab.data.labelled_files import LabelledFiles
from fcnlab.data.orientation import Evidence, Turning, stated_size, turned_size
from fcnlab.data.sample_names import first_few, natural_key
from fcnlab.data.stacks import label_pages, page_names, pages_of
from fcnlab.metrics.names import class_names
from fcnlab.preparation import labelme, layouts, pixel_labels, shapes
from fcnlab.preparation.coco import Coco
from fcnlab.preparation.json_documents import VOID, is_file
from fcnlab.preparation.labelme import ImageInside
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

_EIGHT_BITS = (*JPEG_EXTENSIONS, ".bmp", ".webp", ".gif")  # the extensions of files that never have 16 bits
_LOOKED_AT = 20  # How many JSON files are opened to find out whether they are LabelMe's.
_FEW_LEVELS = 64  # A quarter of what 8 bits can tell apart.


@dataclass(frozen=True)
class Original:
    """One image with a way to read its label.

    Attributes:
        name: A unique name, such as the file's stem.
        path: The image's file; None if it is a page of a stack, or lies in another file.
        read: A function that returns the image, H x W x C uint8 or uint16, and its class indices, H x W uint8.
        split: ``train``, ``val`` or ``test``; None if the originals do not say.
        stack: The file that the image is a page of; None if it is a file of its own.
        folder: The folder of its file.
    """

    name: str
    path: Path | None
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    split: str | None = None
    stack: str | None = None
    folder: str = ""


@dataclass
class Depths:
    """The range of values of images of 16 bits.

    Attributes:
        images: The number of images that have 16 bits.
        largest: The largest value in them.
    """

    images: int = 0
    largest: int = 0

    def add(self, pixels: np.ndarray) -> None:
        """Look at an image that was scaled to 16 bits; one of 8 bits has multiples of 257 alone."""
        if (pixels % 257).any():
            self.images += 1
            self.largest = max(self.largest, int(pixels.max()))

    def warning(self) -> str | None:
        """Return a line that says that 8 bits keep too little of the images; None if they do not."""
        levels = self.largest * 255 // 65535 + 1
        if not self.images or levels > _FEW_LEVELS:
            return None
        return (
            f"{self.images} images have 16 bits and values up to {self.largest:,}: bits=8, which takes the whole range "
            f"up to 65,535, leaves them {levels} grey levels; bits=16 keeps all"
        )


@dataclass
class Originals:
    """All images that are to be prepared.

    Attributes:
        images: The images, in order.
        class_names: The names of the classes.
        palette: The colours of the classes; if empty, those of PASCAL VOC.
        ignore_index: The value of void in the labels that `Original.read` returns.
        channels: The number of channels of each image.
        bits: The bits of each channel.
        licence: What is known of the licence.
        turned: Whether images are turned as their metadata say. None, if that was not declared, where there is nothing
            to turn, or where each label's size says it.
        meaning: What is found in labels and the class that it becomes.
        notes: Lines that say what was recognised.
        warnings: Lines that say what was left out, or is unusual.
        depths: What was seen of images of 16 bits, once they were read.
    """

    images: list[Original]
    class_names: list[str]
    palette: list[list[int]] = field(default_factory=list)
    ignore_index: int = VOID
    channels: int = 3
    bits: int = 8
    licence: str = ""
    turned: bool | None = None
    meaning: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    depths: Depths = field(default_factory=Depths)


@dataclass(frozen=True)
class _Annotated:
    """An image with what is known of its label before either is decoded.

    Attributes:
        name: A unique name.
        image: The image's file, or a page of it, or a function that returns its bytes.
        draw: A function from the image's height and width, and whether to scale, to class indices.
        size: A function that returns the height and width that the label has or states; None if it states none.
        split: See `Original`.
        tool_turns: Whether the tool that the label is from is known to turn what it shows, as LabelMe does.
    """

    name: str
    image: Path | Page | ImageInside
    draw: Callable[[tuple[int, int], bool], np.ndarray]
    size: Callable[[], tuple[int, int] | None]
    split: str | None = None
    tool_turns: bool = False


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
    if (config.channels, config.bits) != (config.dataset.channels, config.dataset.bits):
        raise ConfigError(
            f"channels and bits are for dataset=folder: the images of dataset={name} have 3 channels of 8 bits"
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
    if config.annotations is not None:
        annotated, found = _with_coco(config, folder)
    elif (documents := _labelme_files(config, folder)) is not None:
        annotated, found = _with_labelme(config, folder, *documents)
    else:
        annotated, found = _with_pixels(config, folder)
    found.channels, found.bits = config.channels, config.bits
    evidence = _evidence(annotated)
    found.turned = evidence.decide("turned") if config.turned is None else config.turned
    turning = Turning(config.turned if found.turned is None else found.turned, lambda: evidence, "turned")
    found.images = [_original(config, item, turning, found.depths) for item in annotated]
    return found


def _original(config: PrepareConfig, item: _Annotated, turning: Turning, depths: Depths) -> Original:
    image = item.image
    stack = str(image.path) if isinstance(image, Page) else None
    file = image.path if isinstance(image, Page) else image.document if isinstance(image, ImageInside) else image
    read = partial(_read_both, config, item, turning, depths)
    return Original(item.name, image if isinstance(image, Path) else None, read, item.split, stack, str(file.parent))


def _read_both(
    config: PrepareConfig, item: _Annotated, turning: Turning, depths: Depths
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image, turned as its label was drawn, and its label.

    Raises:
        DataError: If either cannot be read, or their sizes differ.
    """
    may_be_deep = item.image.suffix.lower() not in _EIGHT_BITS
    pixels, orientation = image_files.read_as_stored(
        item.image, config.channels, 16 if may_be_deep else config.bits, declared_bits=config.bits
    )
    if may_be_deep:
        depths.add(pixels)
        pixels = in_bits(pixels, config.bits)
    size = item.size()
    stored, as_shown = pixels.shape[:2], turned_size(pixels.shape[:2], orientation)
    if size is None or (config.annotation_scale and size not in (stored, as_shown)):
        # A tool that states no size, or whose image was resized, drew on what it showed.
        fitted = turning.fitted(pixels, orientation, as_shown)
    else:
        fitted = turning.fitted(pixels, orientation, size)
    shape = fitted.shape[:2]
    if size is not None and size != shape and not config.annotation_scale:
        raise DataError(_other_size(item, size, shape, orientation))
    return fitted, item.draw(shape, size is not None and size != shape)


def _other_size(item: _Annotated, size: tuple[int, int], shape: tuple[int, int], orientation: int) -> str:
    """Return what is said of an image whose label was made for another size."""
    text = f"image '{item.image}' is {_size(shape)} pixels and its label {_size(size)}"
    if size == shape[::-1]:
        return (
            f"{text}, which are swapped: the image was turned after it was labelled, and its metadata do not say how; "
            "turn one of them"
        )
    if orientation != 1:
        return f"{text}, which fits it neither turned as its metadata say nor as it is stored: replace one of them"
    return f"{text}: if the image was resized after it was labelled, annotation_scale=true scales the label"


def _evidence(annotated: Sequence[_Annotated]) -> Evidence:
    """Return what the sizes of labels say of images that are to be turned."""
    found = Evidence()
    for item in annotated:
        if isinstance(item.image, Page):
            continue
        is_inside = isinstance(item.image, ImageInside)
        stated = stated_size(BytesIO(item.image.read_bytes()) if is_inside else item.image)
        if stated is None or stated[1] == 1:
            continue
        size = item.size()
        if item.tool_turns and (size is None or size == turned_size(*stated)):
            found.turned.append(str(item.image))
        else:
            found.add(str(item.image), *stated, size)
    return found


def _with_pixels(config: PrepareConfig, folder: Path) -> tuple[list[_Annotated], Originals]:
    """Return images whose labels are pixels: values, colours, or one mask for each class."""
    home = folder.resolve()
    sides = layouts.find_folders(folder, config.images, config.labels)
    if not config.classes:
        raise DataError("classes: name them in order, as in classes=[background,cell]")
    found = Originals([], list(config.classes), [list(colour) for colour in config.colours])
    pairs: list[layouts.Pair] = []
    for side in sides:
        part, lines = layouts.pair_files(side, home, config.classes)
        pairs += part
        found.notes += [line for line in lines if line not in found.notes]
    if len(sides) > 1 or sides[0].split is not None:
        shown_sides = ", ".join(f"{_below(folder, side.images)} ({side.split})" for side in sides)
        found.notes.append(f"the source is split already: {shown_sides}")
    found.notes += [
        f"images in {_below(folder, side.images)}, labels in {_below(folder, side.labels)}" for side in sides
    ]
    found.warnings += [line for line in (layouts.left_out(folder, pairs),) if line]
    splits = {pair.split for pair in pairs}
    names = _unique_names([pair.name for pair in pairs], [pair.split for pair in pairs])
    _require_unique(names, config.source)
    if any(pair.label is None for pair in pairs):
        return _with_masks(config, pairs, names, found), found
    keep_split = len(splits) > 1
    items: list[tuple[str, Path | Page, Path | Page, str | None]] = []
    for name, pair in zip(names, pairs, strict=True):
        split = pair.split if keep_split else None
        pages = pages_of(pair.image, config.channels, config.bits)
        masks = label_pages(pair.image, pages, pair.label)
        if pages is None:
            items.append((name, pair.image, pair.label, split))
            continue
        items += [(*item, split) for item in zip(page_names(name, len(pages)), pages, masks, strict=True)]
    stacks = sum(isinstance(image, Page) for _, image, _, _ in items)
    if stacks:
        found.notes.append(f"{stacks} images are pages of stacks, each with the page of its label")
    _require_unique([name for name, *_ in items], config.source)
    meaning = None
    if config.colours:
        rows = [*zip(config.colours, config.classes, strict=True)]
        found.meaning = [(f"[{','.join(map(str, colour))}]", name) for colour, name in rows]
        found.meaning += [(f"[{','.join(map(str, config.void_colour))}]", "void")] if config.void_colour else []
    else:
        scan = pixel_labels.scanned(label for _, _, label, _ in items)
        meaning = pixel_labels.decide(scan, config.classes, config.values, config.void_values, config.instances)
        found.meaning = meaning.rows(config.classes)
        if scan.jpegs:
            found.warnings.append(f"{len(scan.jpegs)} labels are JPEGs, such as '{scan.jpegs[0]}'; save labels as PNGs")
    size = _picture_size if meaning is None else _pixel_size
    return [
        _Annotated(name, image, partial(_pixels, config, label, meaning), partial(size, label), split)
        for name, image, label, split in items
    ], found


def _with_masks(
    config: PrepareConfig, pairs: Sequence[layouts.Pair], names: Sequence[str], found: Originals
) -> list[_Annotated]:
    """Return images that have one mask for each class."""
    order = list(config.classes)
    first_has_masks = any(order[0] in pair.masks for pair in pairs)
    masked = order if first_has_masks else order[1:]
    found.meaning = [
        *([] if first_has_masks else [("no mask", order[0])]),
        *((f"mask {name}", name) for name in masked),
    ]
    overlapping: list[str] = []

    def draw(name: str, masks: Mapping[int, Path], shape: tuple[int, int], scale: bool) -> np.ndarray:
        labels, both, bare = pixel_labels.from_masks(masks, shape)
        if bare and first_has_masks:  # Where the first class has none, it is what is left.
            raise DataError(
                f"no mask of '{name}' covers {bare:,} of its pixels, and the first class, '{order[0]}', has masks of "
                f"its own: name a class without masks first, as in classes=[background,{','.join(order)}], or "
                f"complete the masks of '{order[0]}'"
            )
        if both and name not in overlapping:
            overlapping.append(name)
            if len(overlapping) == 1:
                found.warnings.append(f"masks of '{name}' overlap in {both:,} pixels: the later class is taken")
        return labels

    keep_split = len({pair.split for pair in pairs}) > 1
    items = []
    for name, pair in zip(names, pairs, strict=True):
        masks = {order.index(key): path for key, path in pair.masks.items()}
        size = partial(_pixel_size, next(iter(masks.values())))
        items.append(_Annotated(name, pair.image, partial(draw, name, masks), size, pair.split if keep_split else None))
    return items


def _pixels(
    config: PrepareConfig,
    label: Path | Page,
    meaning: pixel_labels.Meaning | None,
    shape: tuple[int, int],
    scale: bool,
) -> np.ndarray:
    if meaning is None:
        labels = pixel_labels.from_colours(label, config.colours, config.void_colour)
    else:
        raw = read_label(label, white=meaning.white, upright=config.turned is not False)
        labels = meaning.to_classes(raw, label)
    if scale:
        labels = labels[np.ix_(*shapes.nearest(shape, labels.shape))]
    return labels


def _pixel_size(label: Path | Page) -> tuple[int, int]:
    """Return the height and width of a label."""
    stated = stated_size(label) if isinstance(label, Path) else None
    return turned_size(*stated) if stated is not None else read_label(label, white=1).shape


def _picture_size(label: Path | Page) -> tuple[int, int]:
    """Return the height and width of a label whose pixels have the colours of classes."""
    stated = stated_size(label) if isinstance(label, Path) else None
    return turned_size(*stated) if stated is not None else image_files.read(label).shape[:2]


def _labelme_files(config: PrepareConfig, folder: Path) -> tuple[Path, Path, dict[str, Path]] | None:
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
                f"source={config.source} has LabelMe files in '{_below(folder, place)}' and labels as pictures in "
                f"'{_below(folder, pictures[0])}': set `labels` to the folder that counts"
            )
        return images, place, found
    return None


def _with_labelme(
    config: PrepareConfig, folder: Path, images_folder: Path, place: Path, documents: Mapping[str, Path]
) -> tuple[list[_Annotated], Originals]:
    """Return the images that LabelMe annotated."""
    if len(config.classes) < 2:
        raise DataError("classes: name them, the background first, as in classes=[background,cell]")
    home = folder.resolve()
    for path in (images_folder, place, *documents.values()):
        require_within(path, home, "source")
    images = dict(files_by_stem(images_folder, IMAGE_EXTENSIONS, home)) if layouts.holds_images(images_folder) else {}
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
        items.append(_Annotated(stem, image or ImageInside(path), draw, partial(_given, size), tool_turns=True))
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


def _given(size: tuple[int, int] | None) -> tuple[int, int] | None:
    return size


def _with_coco(config: PrepareConfig, folder: Path) -> tuple[list[_Annotated], Originals]:
    """Return the images of a COCO file."""
    home = folder.resolve()
    path = Path(config.annotations).expanduser()
    if not path.exists() and not path.is_absolute():
        path = folder / path
        require_within(path, home, "source")
    coco = Coco(path, config.classes, config.boxes)
    place = layouts.find_image_folder(folder, config.images)
    images = {key: _coco_image(coco, name, place, folder, home) for key, name in coco.files.items()}
    twice = _first_twice([str(image) for image in images.values()])
    if twice is not None:
        raise DataError(f"annotation '{coco.path}': two of its images are '{twice}': give each a file of its own")
    if not images:
        raise DataError(f"annotation '{coco.path}': it lists no image")
    names = _unique_stems([(key, PurePosixPath(coco.files[key].replace("\\", "/"))) for key in images])
    items = [
        _Annotated(names[key], image, partial(coco.label, key), partial(_given, coco.sizes[key]))
        for key, image in images.items()
    ]
    items.sort(key=lambda item: natural_key(item.name))
    found = Originals([], coco.class_names, warnings=list(coco.notes))
    others = (
        set(files_by_stem(place, IMAGE_EXTENSIONS).values()) - set(images.values())
        if layouts.holds_images(place)
        else ()
    )
    if others:
        found.warnings.append(
            f"{len(others)} images in '{place}' are not in '{path.name}', and are left out: "
            f"{first_few(other.name for other in others)}"
        )
    listed = {image.resolve() for image in images.values()}
    line = layouts.left_out_files(
        folder, IMAGE_EXTENSIONS, "images", lambda path: path.parent == place or path.resolve() in listed
    )
    found.warnings += [line] if line else []
    found.meaning = [(name, name) for name in coco.class_names] + [("crowds (iscrowd)", "void")]
    return items, found


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


def _require_unique(names: Sequence[str], source: str | None) -> None:
    twice = _first_twice(names)
    if twice is not None:
        raise DataError(f"source={source}: two images would be called '{twice}': rename one")


def _unique_names(names: Sequence[str], splits: Sequence[str | None]) -> list[str]:
    """Return names of which no two are equal: where two splits share one, the split stands before it."""
    often = Counter(names)
    return [f"{split}-{name}" if often[name] > 1 else name for name, split in zip(names, splits, strict=True)]


def _unique_stems(files: Sequence[tuple[str, PurePosixPath]]) -> dict[str, str]:
    """Return a name for each file: its stem, or its path with - between the folders where stems are shared."""
    stems = [path.stem for _, path in files]
    often = Counter(stems)
    names = {
        key: "-".join((*path.parts[:-1], path.stem)).strip("/") if often[path.stem] > 1 else path.stem
        for key, path in files
    }
    twice = _first_twice(list(names.values()))
    if twice is not None:
        raise DataError(f"two images are called {twice}: rename one")
    return names


def _first_twice(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"
