"""Stacks: files of several images, each with a page of a label stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fcnlab.core.errors import DataError
from fcnlab.data import image_files, tiff_files
from fcnlab.data.image_files import Page


def with_pages(
    images: Mapping[str, Path], labels: Mapping[str, Path], channels: int, bits: int
) -> tuple[Mapping[str, Path | Page], Mapping[str, Path | Page]]:
    """Return images and labels with a sample for each image of a stack, such as ``stack-0003`` for ``stack``.

    Args:
        images: The file of each image, by name.
        labels: The file of each label, by the same names.
        channels: The channels that an image is declared to have.
        bits: The bits of a channel that are declared.

    Returns:
        The images and the labels; the same mappings if there is no stack.

    Raises:
        DataError: If a stack's label has another number of pages, or a page is called like another image.
    """
    stacks = {name: pages for name in images if (pages := pages_of(images[name], channels, bits)) is not None}
    for name in images.keys() - stacks.keys():
        if labels[name].suffix.lower() in tiff_files.EXTENSIONS and tiff_files.may_hold_several(labels[name]):
            label_pages(images[name], None, labels[name])
    if not stacks:
        return images, labels
    all_images: dict[str, Path | Page] = {name: path for name, path in images.items() if name not in stacks}
    all_labels: dict[str, Path | Page] = {name: labels[name] for name in all_images}
    for name, pages in stacks.items():
        masks = label_pages(images[name], pages, labels[name])
        for numbered, page, mask in zip(page_names(name, len(pages)), pages, masks, strict=True):
            if numbered in all_images:
                raise DataError(f"'{all_images[numbered]}' and '{page}' are both called '{numbered}': rename one file")
            all_images[numbered], all_labels[numbered] = page, mask
    return all_images, all_labels


def page_names(name: str, count: int) -> list[str]:
    """Return the names of the images in a file, such as ``stack-0003``, which sort as the images do."""
    digits = max(4, len(str(count - 1)))
    return [f"{name}-{number:0{digits}d}" for number in range(count)]


def pages_of(image: Path, channels: int, bits: int) -> list[Page] | None:
    """Return the images in a file that holds several; None for a file that is one image.

    Raises:
        DataError: If it is a TIFF that is damaged.
    """
    if image.suffix.lower() not in tiff_files.EXTENSIONS or not tiff_files.may_hold_several(image):
        return None
    count = image_files.count_images(image, channels, bits)
    return [Page(image, number) for number in range(count)] if count > 1 else None


def label_pages(image: Path, pages: Sequence[Page] | None, label: Path) -> list[Page]:
    """Return the pages of the label of a stack.

    Args:
        image: The file of the image.
        pages: The images in it; None if it is a single one.
        label: The file of its label.

    Raises:
        DataError: If image and label have not as many pages as each other.
    """
    is_tiff = label.suffix.lower() in tiff_files.EXTENSIONS
    found = tiff_files.count_images(label, label, 3, 8) if is_tiff else 1
    wanted = len(pages) if pages is not None else 1
    if found != wanted:
        raise DataError(
            f"image '{image}' holds {wanted} images and its label '{label}' {found}: a stack needs a label stack of as "
            "many pages; if its pages are the channels of one image, set channels to their number, or save it as a "
            "composite (ImageJ)"
        )
    return [Page(label, number) for number in range(found)]
