"""The images that are to be prepared, each with what is known of its label, and how both are read together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import DataError
from fcnlab.data import image_files
from fcnlab.data.image_files import Page, Region
from fcnlab.data.orientation import Evidence, Turning, stated_size, turned_size
from fcnlab.preparation.json_documents import VOID
from fcnlab.preparation.labelme import ImageInside

_FEW_LEVELS = 64  # A quarter of what 8 bits can tell apart.


@dataclass(frozen=True)
class Original:
    """One image with a way to read its label.

    Attributes:
        name: A unique name, such as the file's stem.
        path: The image's file; None if it is a page of a stack, a tile, or lies in another file.
        read: A function that returns the image, H x W x C uint8 or uint16, and its class indices, H x W uint8. Where a
            range of values is declared, the image has the values of its file.
        split: ``train``, ``val`` or ``test``; None if the originals do not say.
        stack: The file that the image is a page or a tile of; None if it is a file of its own. A file of the source is
            named by its place in it.
        folder: The folder of its file, named likewise.
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
        clipped: The number of images with values beyond the range that is declared.
    """

    images: int = 0
    largest: int = 0
    clipped: int = 0

    def add(self, pixels: np.ndarray, value_range: Sequence[int]) -> None:
        """Look at an image with the values of its file, uint8 or uint16."""
        if pixels.dtype != np.uint16:
            return
        smallest, largest = int(pixels.min()), int(pixels.max())
        self.images += 1
        self.largest = max(self.largest, largest)
        self.clipped += bool(value_range) and not value_range[0] <= smallest <= largest <= value_range[1]

    def warning(self, value_range: Sequence[int], bits: int) -> str | None:
        """Return a line that says that what is kept of the images is too little; None if it is not."""
        if value_range:
            return (
                f"{self.clipped} of {self.images} images have values beyond value_range={list(value_range)} (the "
                f"largest is {self.largest:,}), which are clipped"
                if self.clipped
                else None
            )
        levels = self.largest * 255 // 65535 + 1
        if bits == 16 or self.largest == 0 or levels > _FEW_LEVELS:  # Black is black in any range.
            return None
        return (
            f"{self.images} images have 16 bits and values up to {self.largest:,}: bits=8, which takes the whole range "
            f"up to 65,535, leaves them {levels} grey levels; value_range=[0,{2 ** self.largest.bit_length() - 1}] "
            "spreads them over all 256, and bits=16 keeps every one"
        )


@dataclass
class Originals:
    """All images that are to be prepared.

    Attributes:
        images: The images, in order.
        class_names: The names of the classes.
        palette: The colours of the classes; if empty, those of `fcnlab.drawing.palette.class_palette`.
        ignore_index: The value of void in the labels that `Original.read` returns.
        channels: The number of channels of each image.
        bits: The bits of each channel.
        value_range: The lowest and the highest value of images of 16 bits; empty for their whole range.
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
    value_range: Sequence[int] = ()
    licence: str = ""
    turned: bool | None = None
    meaning: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    depths: Depths = field(default_factory=Depths)


@dataclass(frozen=True)
class Annotated:
    """An image with what is known of its label before either is decoded.

    Attributes:
        name: A unique name.
        image: The image's file, or a page or a tile of it, or what returns its bytes.
        draw: A function from the image's height and width, and whether to scale, to class indices.
        size: A function that returns the height and width that the label has or states; None if it states none.
        split: See `Original`.
        tool_turns: Whether the tool that the label is from is known to turn what it shows, as LabelMe does.
    """

    name: str
    image: Path | Page | Region | ImageInside
    draw: Callable[[tuple[int, int], bool], np.ndarray]
    size: Callable[[], tuple[int, int] | None]
    split: str | None = None
    tool_turns: bool = False


def original_of(config: PrepareConfig, source: Path, item: Annotated, turning: Turning, depths: Depths) -> Original:
    """Return an image as it is prepared.

    Args:
        config: The channels and bits of the images, and whether labels are scaled.
        source: The source, unpacked. Stacks and folders are named by their place in it, which is the same elsewhere.
        item: The image with what is known of its label.
        turning: How images are turned for their labels.
        depths: What was seen of images of 16 bits, to which this one is added when it is read.
    """
    image = item.image
    whole = image.file if isinstance(image, Region) else image
    file = whole.path if isinstance(whole, Page) else whole.document if isinstance(whole, ImageInside) else whole
    read = partial(_read_both, config, item, turning, depths)
    real, home = file.resolve(), source.resolve()
    place = real.relative_to(home) if real.is_relative_to(home) else file
    stack = place.as_posix() if isinstance(image, (Page, Region)) else None
    path = image if isinstance(image, Path) else None
    return Original(item.name, path, read, item.split, stack, place.parent.as_posix())


def _read_both(
    config: PrepareConfig, item: Annotated, turning: Turning, depths: Depths
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image, turned as its label was drawn, and its label.

    Raises:
        DataError: If either cannot be read, or their sizes differ.
    """
    pixels, orientation = image_files.read_unscaled(item.image, config.channels, config.bits)
    depths.add(pixels, config.value_range)
    in_declared_bits = image_files.scaled(pixels, item.image, config.bits, config.value_range)
    if not config.value_range:  # A range is applied to what the file that is written holds.
        pixels = in_declared_bits
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


def _other_size(item: Annotated, size: tuple[int, int], shape: tuple[int, int], orientation: int) -> str:
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


def evidence_of(annotated: Sequence[Annotated]) -> Evidence:
    """Return what the sizes of labels say of images that are to be turned."""
    found = Evidence()
    for item in annotated:
        if isinstance(item.image, (Page, Region)):
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


def given(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a height and width that an annotation states; with ``partial``, the function that `Annotated` takes."""
    return size


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"
