"""ONNX files: the initializers of a graph, and its convolutions in their order.

Read by their wire format, so that the package ``onnx`` is not needed and a hostile file reaches no C++ parser.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fcnlab.core.checkpoint_header import METADATA_KEY
from fcnlab.models.foreign import protobuf
from fcnlab.models.foreign.weights_file import WeightsFile, as_float32, check_size, from_bfloat16

# The numbers of the fields and types are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
_DTYPES = {_FLOAT: "<f4", _FLOAT16: "<f2", _DOUBLE: "<f8", _BFLOAT16: "<u2"}
_NORM_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass
class _Node:
    kind: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constant: memoryview | None = None


def read_onnx(content: bytes) -> WeightsFile:
    """Read the weights of an ONNX file.

    Raises:
        ValueError: If the file is damaged, or keeps its weights in other files.
    """
    metadata: dict[str, str] = {}
    arrays: dict[str, np.ndarray] = {}
    nodes: list[_Node] = []
    for number, kind, value in protobuf.fields(memoryview(content)):
        if number == 7 and kind == protobuf.BYTES:
            _read_graph(value, arrays, nodes)
        elif number == 14 and kind == protobuf.BYTES:
            key, text = _entry(value)
            metadata[key] = text
    check_size((array.shape for array in arrays.values()), len(content))
    return WeightsFile("ONNX", arrays, _own_document(metadata), _convolutions(nodes, arrays))


def _read_graph(graph: memoryview, arrays: dict[str, np.ndarray], nodes: list[_Node]) -> None:
    for number, kind, value in protobuf.fields(graph):
        if kind != protobuf.BYTES:
            continue
        if number == 1:
            node = _read_node(value)
            nodes.append(node)
            if node.constant is not None and node.outputs:
                _, array = _read_tensor(node.constant)
                if array is not None:
                    arrays[node.outputs[0]] = array
        elif number == 5:
            name, array = _read_tensor(value)
            if array is not None:
                arrays[name] = array


def _read_node(message: memoryview) -> _Node:
    node = _Node()
    for number, kind, value in protobuf.fields(message):
        if number == 1:
            node.inputs.append(protobuf.text(value))
        elif number == 2:
            node.outputs.append(protobuf.text(value))
        elif number == 4:
            node.kind = protobuf.text(value)
        elif number == 5 and kind == protobuf.BYTES:
            tensor = next(protobuf.parts(value, 5), None)
            if node.kind == "Constant":
                node.constant = tensor
    return node


def _read_tensor(message: memoryview) -> tuple[str, np.ndarray | None]:
    """Return name and array of a tensor; no array if it holds something else than floating-point numbers."""
    name, dtype, raw, external = "", 0, None, False
    dims: list[int] = []
    numbers: list[memoryview] = []  # where the numbers are not in `raw`: float and double
    halves: list[int] = []  # likewise: the bits of 16-bit numbers, each as an integer
    for number, kind, value in protobuf.fields(message):
        if number == 1:
            dims += protobuf.integers(kind, value)
        elif number == 2 and kind == protobuf.VARINT:
            dtype = value
        elif number in (4, 10) and kind != protobuf.VARINT:
            numbers.append(value)
        elif number == 5:
            halves += protobuf.integers(kind, value)
        elif number == 8:
            name = protobuf.text(value)
        elif number == 9 and kind == protobuf.BYTES:
            raw = value
        elif number == 14 and value == 1:
            external = True
    if dtype not in _DTYPES:
        return name, None
    if external:
        raise ValueError(
            "it keeps its weights in other files; write it as one: onnx.save(onnx.load('x.onnx'), 'whole.onnx')"
        )
    if any(dim < 0 for dim in dims):
        raise ValueError("a dimension is negative")
    if raw is None:
        raw = memoryview(np.array(halves, np.int64).astype("<u2").tobytes() if halves else b"".join(numbers))
    if len(raw) != math.prod(dims) * np.dtype(_DTYPES[dtype]).itemsize:
        raise ValueError("an array has more or fewer numbers than its shape says")
    array = from_bfloat16(raw) if dtype == _BFLOAT16 else np.frombuffer(raw, _DTYPES[dtype])
    return name, as_float32(array).reshape(dims)


def _entry(message: memoryview) -> tuple[str, str]:
    found = {number: protobuf.text(value) for number, _, value in protobuf.fields(message)}
    return found.get(1, ""), found.get(2, "")


def _own_document(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON document of a checkpoint, which ``fcnlab.export`` puts into the metadata; empty without one."""
    try:
        document = json.loads(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _convolutions(nodes: list[_Node], arrays: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """Find each convolution with its bias, which may be added by a node of its own, and its batch norm."""
    users: dict[str, list[_Node]] = {}
    for node in nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node)
    found = []
    for node in nodes:
        if node.kind != "Conv" or len(node.inputs) < 2 or node.inputs[1] not in arrays:
            continue
        layer = {"weight": node.inputs[1]}
        if len(node.inputs) > 2 and node.inputs[2] in arrays:
            layer["bias"] = node.inputs[2]
        next_nodes = users.get(node.outputs[0], []) if node.outputs else []
        if len(next_nodes) == 1:
            layer |= _following(next_nodes[0], arrays, arrays[node.inputs[1]].shape[0], "bias" in layer)
        found.append(layer)
    return found


def _following(node: _Node, arrays: Mapping[str, np.ndarray], channels: int, has_bias: bool) -> dict[str, str]:
    if node.kind == "BatchNormalization" and len(node.inputs) == 5 and all(name in arrays for name in node.inputs[1:]):
        return dict(zip(_NORM_PARTS, node.inputs[1:], strict=True))
    added = [name for name in node.inputs if name in arrays and arrays[name].size == channels]
    return {"bias": added[0]} if node.kind == "Add" and not has_bias and added else {}
