"""Stacks: files of several images, each with a page of a label stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fcnlab.core.errors import DataError
from fcnlab.data import image_files, tiff_files
from fcnlab.data.image_files import Page


def pages_of(image: Path, channels: int, bits: int) -> list[Page] | None:
    """Return the images in a file that holds several; None for a file that is one image.

    Raises:
        DataError: If it is a TIFF that is damaged.
    """
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
