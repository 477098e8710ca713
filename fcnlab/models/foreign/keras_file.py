"""Keras's ``.h5`` and ``.weights.h5`` files, through h5py, which the extra `weights` brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fcnlab.models.foreign.weights_file import WeightsFile, as_float32, check_size

MAGIC = b"\x89HDF\r\n\x1a\n"


def read_keras(path: Path) -> WeightsFile:
    """Read the data sets of an HDF5 file by their paths in it.

    Raises:
        ValueError: If h5py is missing, or a data set is not within the file. h5py raises others for damage.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ValueError("it needs the package of the extra `weights`: pip install 'fcnlab[weights]'") from error
    found: dict[str, Any] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = item

    with h5py.File(path, "r") as file:
        file.visititems(collect)  # follows no link into another file
        for name, dataset in found.items():
            if dataset.external or dataset.is_virtual:
                raise ValueError(f"{name!r} is kept in another file")
        check_size((dataset.shape for dataset in found.values()), path.stat().st_size)
        return WeightsFile("Keras", {name: as_float32(dataset[()]) for name, dataset in found.items()})
