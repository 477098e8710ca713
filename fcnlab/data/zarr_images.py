"""OME-Zarr: images of any size in a folder of small files, of which only those that are needed are read.

The specification is that of OME-NGFF (ngff.openmicroscopy.org), versions 0.4 and 0.5: ``multiscales`` names the axes
and the arrays of a pyramid, the largest first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.tiff_regions import Part

SUFFIX = ".zarr"
"""The end of the name of such a folder, in lower case."""

EXTRA = "zarr"
"""The extra of this package that installs what it takes."""


def size_of(path: Path) -> tuple[int, int]:
    """Return the height and width of an image.

    Raises:
        DataError: As `read_part` does.
    """
    array, axes = _opened(path)
    return tuple(int(array.shape[axes.index(axis)]) for axis in "yx")  # type: ignore[return-value]


def read_part(path: Path, part: Part) -> np.ndarray:
    """Read a part of an image in its full resolution.

    Args:
        path: The folder.
        part: The part, which lies within the image.

    Returns:
        height x width, or height x width x channels, of the array's own type.

    Raises:
        DataError: If the extra is not installed, or the folder is no OME-Zarr, is damaged, or has several images.
    """
    array, axes = _opened(path)
    places = {
        "y": slice(part.top, part.top + part.height),
        "x": slice(part.left, part.left + part.width),
        "c": slice(None),
    }
    for axis, length in zip(axes, array.shape, strict=True):
        if axis not in places and length != 1:
            raise DataError(
                f"image '{path}' has {length} images along its axis {axis}, and a single one is expected: save each in "
                "a folder of its own"
            )
    try:
        pixels = np.asarray(array[tuple(places.get(axis, 0) for axis in axes)])
    except Exception:  # What zarr raises depends on where the damage is.
        raise DataError(f"image '{path}' is damaged: replace it, or remove it") from None
    kept = [axis for axis in axes if axis in places]
    pixels = pixels.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _opened(path: Path) -> tuple[Any, str]:
    """Return the largest array of an image, and the letters of its axes in order."""
    try:
        import zarr
    except ImportError:
        raise DataError(f"image '{path}' is an OME-Zarr, which needs an extra: pip install 'fcnlab[{EXTRA}]'") from None
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        [scales, *_] = attributes.get("ome", attributes)["multiscales"]
        axes = "".join(axis["name"] if isinstance(axis, dict) else axis for axis in scales["axes"])
        array = group[scales["datasets"][0]["path"]]
        if len(axes) != len(array.shape) or not {"y", "x"} <= {*axes}:
            raise ValueError(axes)
    except Exception:
        raise DataError(
            f"image '{path}' is no OME-Zarr of version 0.4 or 0.5, with the axes and arrays that `multiscales` names"
        ) from None
    return array, axes
