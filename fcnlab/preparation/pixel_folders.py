"""Images whose labels are pixels, as they are found in a folder: values, colours, or one mask for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import DataError
from fcnlab.data import image_files
from fcnlab.data.image_files import Page, Region
from fcnlab.data.label_files import read_label
from fcnlab.data.orientation import stated_size, turned_size
from fcnlab.data.stacks import label_pages, page_names, pages_of
from fcnlab.preparation import layouts, pixel_labels, shapes
from fcnlab.preparation.annotated_images import Annotated, Originals
from fcnlab.preparation.image_names import require_unique, unique_names
from fcnlab.preparation.tiles import tiles_of


def find(config: PrepareConfig, folder: Path) -> tuple[list[Annotated], Originals]:
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
        shown_sides = ", ".join(f"{layouts.path_below(folder, side.images)} ({side.split})" for side in sides)
        found.notes.append(f"the source is split already: {shown_sides}")
    found.notes += [
        f"images in {layouts.path_below(folder, side.images)}, labels in {layouts.path_below(folder, side.labels)}"
        for side in sides
    ]
    found.warnings += [line for line in (layouts.left_out(folder, pairs),) if line]
    if len({pair.split for pair in pairs}) == 1:  # The folder of a single split is all that there is.
        pairs = [pair._replace(split=None) for pair in pairs]
    names = unique_names([pair.name for pair in pairs], [pair.split for pair in pairs])
    require_unique(names, config.source)
    if any(pair.label is None for pair in pairs):
        return _with_masks(config, pairs, names, found), found
    items: list[tuple[str, Path | Page | Region, Path | Page | Region, str | None]] = []
    for name, pair in zip(names, pairs, strict=True):
        pages = pages_of(pair.image, config.channels, config.bits)
        masks = label_pages(pair.image, pages, pair.label)
        if pages is None:
            items.append((name, pair.image, pair.label, pair.split))
            continue
        items += [(*item, pair.split) for item in zip(page_names(name, len(pages)), pages, masks, strict=True)]
    uncut, items = items, []
    for name, image, label, split in uncut:
        for tile in tiles_of(name, image, [label], config.tile, config.channels, config.bits):
            items.append((tile.name, tile.image, tile.labels[0], split))
    found.notes += _about_tiles(config, [image for _, image, _, _ in items], len(uncut))
    stacks = sum(isinstance(image, Page) for _, image, _, _ in uncut)
    if stacks:
        found.notes.append(f"{stacks} images are pages of stacks, each with the page of its label")
    require_unique([name for name, *_ in items], config.source)
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
        Annotated(name, image, partial(_pixels, config, label, meaning), partial(size, label), split)
        for name, image, label, split in items
    ], found


def _with_masks(
    config: PrepareConfig, pairs: Sequence[layouts.Pair], names: Sequence[str], found: Originals
) -> list[Annotated]:
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
        labels, both, bare = pixel_labels.from_masks(masks, shape, scale)
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

    items = []
    for name, pair in zip(names, pairs, strict=True):
        order_of_masks = [order.index(key) for key in pair.masks]
        given = [*pair.masks.values()]
        for tile in tiles_of(name, pair.image, given, config.tile, config.channels, config.bits):
            masks = dict(zip(order_of_masks, tile.labels, strict=True))
            size = partial(_pixel_size, tile.labels[0])
            items.append(Annotated(tile.name, tile.image, partial(draw, tile.name, masks), size, pair.split))
    require_unique([item.name for item in items], config.source)
    found.notes += _about_tiles(config, [item.image for item in items], len(pairs))
    return items


def _about_tiles(config: PrepareConfig, images: Sequence[Path | Page | Region], before: int) -> list[str]:
    """Return a line about images that were cut into tiles; none if there are none."""
    if len(images) == before:
        return []
    cut = {image.file for image in images if isinstance(image, Region)}
    count = sum(isinstance(image, Region) for image in images)
    return [f"{len(cut)} images are larger than tile={config.tile} and are cut into {count} tiles, with their labels"]


def _pixels(
    config: PrepareConfig,
    label: Path | Page | Region,
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


def _pixel_size(label: Path | Page | Region) -> tuple[int, int]:
    """Return the height and width of a label."""
    if isinstance(label, Region):
        return label.part.height, label.part.width
    stated = stated_size(label) if isinstance(label, Path) else None
    return turned_size(*stated) if stated is not None else read_label(label, white=1).shape


def _picture_size(label: Path | Page | Region) -> tuple[int, int]:
    """Return the height and width of a label whose pixels have the colours of classes."""
    if isinstance(label, Region):
        return label.part.height, label.part.width
    stated = stated_size(label) if isinstance(label, Path) else None
    return turned_size(*stated) if stated is not None else image_files.read(label).shape[:2]
