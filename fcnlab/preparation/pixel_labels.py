"""Labels as pixels: what their values or colours mean, decided once for all labels of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data import image_files
from fcnlab.data.image_files import Page, Region
from fcnlab.data.label_files import read_raw_label
from fcnlab.data.label_palettes import Palettes, bracketed
from fcnlab.data.sample_names import first_few
from fcnlab.preparation.json_documents import VOID
from fcnlab.preparation.shapes import nearest

_MANY = 16  # As many values beyond those of the classes are objects' numbers, or blends of two values.
_JPEG = "JPEG changes the values of pixels when it is saved: save labels as PNGs"


class Scan:
    """Everything that the labels of a data set hold, gathered file by file.

    Attributes:
        files: The number of files that hold each value.
        first: The first file that holds each value.
        palettes: The colours that palettes give the values.
        jpegs: The labels that are JPEGs.
        bilevel: Whether any label has pixels of one bit.
    """

    def __init__(self) -> None:
        self.files: dict[int, int] = {}
        self.first: dict[int, str] = {}
        self.palettes = Palettes()
        self.jpegs: list[str] = []
        self.bilevel = False

    def add(self, path: Path | Page | Region) -> None:
        """Look at a label.

        Raises:
            DataError: If it cannot be read, or is a picture in colours.
        """
        try:
            raw = read_raw_label(path, white=1)
        except DataError as error:
            if "is a colour image" in str(error):
                raise DataError(
                    f"label '{path}' is a picture in colours ({_colours_in(path)}): set `colours` to the colour of "
                    "each class, in the order of `classes`"
                ) from None
            raise
        if raw.is_bilevel:
            self.bilevel = True
            return
        if raw.is_jpeg:
            self.jpegs.append(str(path))
        for value in np.unique(raw.values).tolist():
            self.files[value] = self.files.get(value, 0) + 1
            self.first.setdefault(value, str(path))
        self.palettes.add(raw, path)


class Meaning(NamedTuple):
    """What the values of all labels of a data set mean.

    Attributes:
        values: The value of each class; empty where every value but 0 is an object of the second class.
        void: The values of void.
        white: The value of the bright pixels of labels of one bit.
        num_classes: The number of classes.
    """

    values: tuple[int, ...]
    void: tuple[int, ...]
    white: int
    num_classes: int

    def to_classes(self, raw: np.ndarray, path: Path | Page | Region) -> np.ndarray:
        """Return class indices, H x W uint8, with 255 for void.

        Raises:
            DataError: If a value means nothing, which happens if the file was changed after the values were decided.
        """
        if not self.values:
            labels = (raw != 0).astype(np.uint8)
            labels[np.isin(raw, self.void)] = VOID
            return labels
        known = np.isin(raw, [*self.values, *self.void])
        if not known.all():
            raise DataError(f"label '{path}' has the values {first_few(np.unique(raw[~known]).tolist())} of no class")
        table = np.full(max(*self.values, *self.void) + 1, VOID, np.uint8)
        table[list(self.values)] = np.arange(len(self.values))
        return table[raw]

    def rows(self, class_names: Sequence[str]) -> list[tuple[str, str]]:
        """Return what is found in labels and what it becomes, for a table."""
        if not self.values:
            rows = [("0", class_names[0]), ("every other value", class_names[1])]
        else:
            rows = [(str(value), class_names[index]) for index, value in enumerate(self.values)]
        return rows + [(str(value), "void") for value in self.void]


def decide(
    scan: Scan, class_names: Sequence[str], values: Sequence[int], void_values: Sequence[int], instances: bool
) -> Meaning:
    """Decide what the values of all labels mean.

    Where ``values`` is empty, labels hold class indices, or 0 and 255 for two classes if no label has another value.
    255 is void unless it is a class's value, or ``void_values`` says what is.

    Args:
        scan: What the labels hold.
        class_names: The names of the classes.
        values: The value of each class; empty if it is not declared.
        void_values: The values of void; empty if they are not declared.
        instances: Whether every value but 0 is an object of the second class.

    Raises:
        DataError: If it is unclear, with the words that settle it.
    """
    count, found = len(class_names), set(scan.files)
    if scan.palettes.contradiction is not None and not values and not instances:  # Objects may have any colours.
        raise DataError(
            f"{scan.palettes.contradiction}; set `colours` to the colour of each class, so that labels are matched by "
            "colour, or `values` if the indices count whatever their colours"
        )
    if instances:
        if count != 2 or values:
            raise DataError("instances=true: name two classes, as in classes=[background,cell], and leave out `values`")
        return Meaning((), tuple(void_values), 1, count)
    if values:
        chosen = list(values)
    elif not void_values and count == 2 and 255 in found and found <= {0, 255}:
        chosen = [0, 255]
    else:
        chosen = [value for value in range(count + len(void_values)) if value not in void_values][:count]
        if not void_values and count > 2 and 255 in found and found <= {0, 255}:
            raise DataError(
                f"the labels hold 0 and 255 alone, such as '{scan.first[255]}', and there are {count} classes: set "
                "`values` to the value of each class, or void_values=[255] if 255 is void"
            )
    void = list(void_values) if void_values else [255] * (255 not in chosen)
    both = sorted(set(void) & set(chosen))
    if both:
        raise DataError(f"void_values and values both have {first_few(both)}: a value is a class or void")
    strange = sorted(found - set(chosen) - set(void))
    if strange:
        raise DataError(_strange(scan, strange, class_names, chosen))
    white = 255 if 255 in chosen else 1
    if scan.bilevel and white not in chosen and white not in void:
        raise DataError("labels of one bit are black and white: set `values` to two values, as in values=[0,255]")
    return Meaning(tuple(chosen), tuple(void), white, count)


def scanned(labels: Iterable[Path | Page | Region]) -> Scan:
    """Look at every label.

    Raises:
        DataError: As `Scan.add` does.
    """
    scan = Scan()
    for path in labels:
        scan.add(path)
    return scan


def from_colours(
    path: Path | Page | Region, colours: Sequence[Sequence[int]], void: Sequence[int] | None
) -> np.ndarray:
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


def from_masks(
    masks: Mapping[int, Path | Page | Region], shape: tuple[int, int], scale: bool = False
) -> tuple[np.ndarray, int, int]:
    """Read a label that is one mask for each class, whose pixels other than 0 are of the class.

    Args:
        masks: The mask of each class index; the lowest is drawn first.
        shape: The height and width of the image.
        scale: Whether the masks, which all have one size, are scaled to that of the image.

    Returns:
        Class indices, H x W uint8, with 0 where no mask is; how many pixels two masks claim; and how many none does.

    Raises:
        DataError: If a mask cannot be read, or has another size.
    """
    labels, claimed = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    first: tuple[int, ...] = ()
    for index, path in sorted(masks.items()):
        mask = read_raw_label(path, white=1).values != 0
        first = first or mask.shape
        if mask.shape != first:
            raise DataError(f"mask '{path}' is {_size(mask.shape)} pixels and another one of its image {_size(first)}")
        if scale:
            mask = mask[np.ix_(*nearest(shape, mask.shape))]
        if mask.shape != shape:
            raise DataError(f"mask '{path}' and its image differ in size: {_size(mask.shape)} and {_size(shape)}")
        labels[mask] = index
        claimed += mask
    return labels, int((claimed > 1).sum()), int((claimed == 0).sum())


def _strange(scan: Scan, strange: Sequence[int], class_names: Sequence[str], chosen: Sequence[int]) -> str:
    """Return what is said of values that are no class's, with the way out."""
    path = scan.first[strange[0]]
    text = f"label '{path}' has the values {first_few(strange)}, which are no class's"
    if scan.jpegs:
        return f"{text}, and '{scan.jpegs[0]}' is a JPEG: {_JPEG}"
    if len(strange) > _MANY and len(class_names) == 2:
        return (
            f"{text}: if each object has a value of its own, instances=true makes every value but 0 the class "
            f"'{class_names[1]}'; if edges are blended, save the labels without smoothing"
        )
    held = sorted(scan.files)
    likely = held if len(held) == len(chosen) else [value for value in held if value != VOID]
    example = f", as in values={bracketed(likely)}" if len(likely) == len(chosen) else ""
    return f"{text}: set `values` to that of each class{example}, or void_values to those of void"


def _colours_in(path: Path | Page | Region) -> str:
    """Return the first few colours of a picture."""
    pixels = image_files.read(path).reshape(-1, 3)
    colours = np.unique(pixels, axis=0)
    shown = ", ".join(bracketed(colour) for colour in colours[:5].tolist())
    return f"{shown} and {len(colours) - 5} more" if len(colours) > 5 else shown


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
