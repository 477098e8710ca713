"""Safetensors files, of this package or of another."""

from __future__ import annotations

from pathlib import Path

from safetensors import deserialize, safe_open

from fcnlab.core.checkpoint_header import metadata_of, verify
from fcnlab.models.foreign.weights_file import WeightsFile, as_float32, from_bfloat16

_NUMBERS = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def read_safetensors(path: Path) -> WeightsFile:
    """Read the arrays of a safetensors file. One with a digest must match it.

    Raises:
        ValueError: If the file is damaged, or an array is of a type that numpy does not have. The library raises a
            `SafetensorError` for damage.
    """
    verify(path)
    with safe_open(str(path), framework="numpy") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        unknown = {*kinds.values()} - _NUMBERS
        if unknown:
            raise ValueError(f"it has arrays of type {', '.join(sorted(unknown))}; write them as F32")
        metadata = metadata_of(file)
        arrays = {name: as_float32(file.get_tensor(name)) for name, kind in kinds.items() if kind != "BF16"}
    if len(arrays) < len(kinds):  # numpy has no bfloat16
        for name, entry in deserialize(path.read_bytes()):
            if entry["dtype"] == "BF16":
                arrays[name] = from_bfloat16(bytes(entry["data"])).reshape(entry["shape"])
    return WeightsFile("safetensors", {name: arrays[name] for name in kinds}, metadata)
