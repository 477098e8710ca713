"""Numpy's ``.npz`` files; arrays of objects, which are pickles, are refused."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from fcnlab.models.foreign.archive import read_member
from fcnlab.models.foreign.weights_file import LARGEST, WeightsFile, as_float32, check_size

ENDING = ".npy"

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path) -> WeightsFile:
    """Read the arrays of an ``.npz`` file.

    Raises:
        ValueError: If the file is damaged or an array is of other things than numbers. Others of Python's and
            `zipfile`'s errors may come of damage.
    """
    file_size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(ENDING)]
        check_size(([archive.getinfo(name).file_size // 4] for name in names), file_size)
        read = {name.removesuffix(ENDING): _read_array(read_member(archive, name, LARGEST)) for name in names}
    check_size((array.shape for array in read.values()), file_size)
    return WeightsFile("numpy", {name: as_float32(array) for name, array in read.items()})


def _read_array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an array is of version {version}")
    shape, by_columns, dtype = _HEADERS[version](file)
    if dtype.kind not in "fiub":
        raise ValueError("an array holds something else than numbers")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError("an array has more or fewer numbers than its shape says")
    numbers = np.frombuffer(content, dtype, offset=file.tell())
    return numbers.reshape(shape, order="F" if by_columns else "C")
