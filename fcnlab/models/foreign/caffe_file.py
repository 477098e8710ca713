"""Caffe's ``.caffemodel``: the blobs of each layer, of the layers that Caffe writes since 2014 and of those before."""

from __future__ import annotations

import math

import numpy as np

from fcnlab.models.foreign import protobuf
from fcnlab.models.foreign.weights_file import WeightsFile, as_float32, check_size

# The numbers of the fields are those of https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto.
LAYERS = {2: (4, 6), 100: (1, 7)}
"""For each field of a net that holds layers, the fields of their name and of their blobs: V1 and V2."""

_PARTS = ("weight", "bias")


def read_caffe(content: bytes) -> WeightsFile:
    """Read the blobs of a ``.caffemodel`` as ``LAYER.weight``, ``LAYER.bias`` and, if there are more, ``LAYER.2``.

    Raises:
        ValueError: If the file is damaged.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, kind, layer in protobuf.fields(memoryview(content)):
        if number not in LAYERS or kind != protobuf.BYTES:
            continue
        name_field, blobs_field = LAYERS[number]
        name = "".join(map(protobuf.text, protobuf.parts(layer, name_field)))
        for index, blob in enumerate(protobuf.parts(layer, blobs_field)):
            part = _PARTS[index] if index < len(_PARTS) else str(index)
            arrays[f"{name}.{part}"] = _read_blob(blob)
    check_size((array.shape for array in arrays.values()), len(content))
    return WeightsFile("Caffe", arrays)


def _read_blob(message: memoryview) -> np.ndarray:
    old_shape = {}
    shape: list[int] | None = None
    data: dict[int, list[memoryview]] = {5: [], 8: []}  # float and double, each packed or not
    for number, kind, value in protobuf.fields(message):
        if number in (1, 2, 3, 4) and kind == protobuf.VARINT:
            old_shape[number] = value
        elif number in data and kind != protobuf.VARINT:
            data[number].append(value)
        elif number == 7 and kind == protobuf.BYTES:
            shape = [dim for field, kind, dims in protobuf.fields(value) if field == 1
                     for dim in protobuf.integers(kind, dims)]  # fmt: skip
    if shape is None:  # as Caffe wrote before it had blobs of other than four dimensions
        shape = [old_shape.get(number, 0) for number in (1, 2, 3, 4)] if old_shape else []
    content, dtype = (data[5], "<f4") if data[5] else (data[8], "<f8")
    numbers = np.frombuffer(content[0] if len(content) == 1 else b"".join(content), dtype)
    if any(dim < 0 for dim in shape) or math.prod(shape) != numbers.size:
        raise ValueError("a blob has more or fewer numbers than its shape says")
    return as_float32(numbers).reshape(shape)
