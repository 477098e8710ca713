"""Checkpoint files: arrays by name and a JSON document, as safetensors, or arrays alone as MindSpore's ``.ckpt``.

Neither format is pickled, and a file appears whole or not at all. Safetensors are written here in pieces, as the
library would copy all parameters twice. A ``.ckpt`` is written here, as `mindspore.save_checkpoint` deletes the older
file first, makes the new one unreadable to others and logs a full disk by itself; it is parsed here, as
`mindspore.load_checkpoint` copies all bytes of a damaged file to where its shape has room for fewer.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn
from mindspore.train.checkpoint_pb2 import Checkpoint
from safetensors import safe_open

from fcnlab.core.checkpoint_header import (
    DIGEST_KEY,
    DIGESTED,
    METADATA_KEY,
    NO_DIGEST,
    metadata_of,
    readable,
    verify,
)
from fcnlab.core.errors import CheckpointError, first_line
from fcnlab.core.files import replacing

_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
_PIECE = 2**22
"""The number of bytes that are written and hashed at a time."""
_CKPT_SLICE = 2**29
"""The number of bytes of an array that MindSpore writes into one message."""
_CRC = b"crc_num"
"""What stands before the ten bytes of a checksum that MindSpore may put at the end of a ``.ckpt``."""


def save_weights(path: Path, network: nn.Cell, metadata: Mapping[str, Any]) -> None:
    """Write all parameters of a network and a JSON document as safetensors.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    save_parameters(path, network.parameters_dict(), metadata)


def save_parameters(
    path: Path,
    parameters: Mapping[str, Parameter],
    metadata: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write parameters by name and a JSON document as safetensors.

    The file holds its own SHA-256, computed over its whole content with zeros in the place of the digest.

    Args:
        path: The file; its folder is made when missing.
        parameters: The parameters by name.
        metadata: The document.
        arrays: Further arrays, by names that no parameter has.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    tensors: dict[str, Parameter | np.ndarray] = {**parameters, **(arrays or {})}
    try:
        with replacing(path) as temporary, temporary.open("wb") as file, ThreadPoolExecutor(1) as pool:
            header = _header(tensors, metadata)
            digest = hashlib.sha256()
            for piece in _pieces(chain([header], map(_content, tensors.values()))):
                hashing = pool.submit(digest.update, piece)
                file.write(piece)  # both release the interpreter's lock
                hashing.result()
            file.seek(header.index(NO_DIGEST))
            file.write(digest.hexdigest().encode())
    except OSError as error:
        raise _cannot_write(path, error) from error


def save_ckpt(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as MindSpore's ``.ckpt``, byte by byte as `mindspore.save_checkpoint` does.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            for piece in _pieces(entry for name, array in arrays.items() for entry in _ckpt_entries(name, array)):
                file.write(piece)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _ckpt_entries(name: str, array: np.ndarray) -> Iterator[bytes | memoryview]:
    """Yield an array as MindSpore writes it, in one message or, if it is large, in several; nothing is copied."""
    content = _content(np.asarray(array))
    for start in range(0, len(content), _CKPT_SLICE):
        part = content[start : start + _CKPT_SLICE]
        value = Checkpoint.Value()
        value.tag = name
        tensor = Checkpoint.Value().tensor
        tensor.dims.extend(array.shape)
        tensor.tensor_type = str(ms.dtype.pytype_to_dtype(array.dtype.type))
        tensor_head = tensor.SerializePartialToString() + _field(3, len(part))
        value_head = value.SerializePartialToString() + _field(2, len(tensor_head) + len(part)) + tensor_head
        yield _field(1, len(value_head) + len(part)) + value_head
        yield part


def _field(number: int, length: int) -> bytes:
    """Return the beginning of a protobuf field: its number with wire type 2, and its length in groups of seven bits."""
    head = [number << 3 | 2]
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*head, length])


def _pieces(parts: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Join small parts to larger pieces: a thread that releases the interpreter's lock waits to get it back."""
    small: list[bytes | memoryview] = []
    size = 0
    for part in parts:
        if len(part) >= _PIECE:
            yield b"".join(small)
            yield part
            small, size = [], 0
            continue
        small.append(part)
        size += len(part)
        if size >= _PIECE:
            yield b"".join(small)
            small, size = [], 0
    yield b"".join(small)


def _content(tensor: Parameter | np.ndarray) -> bytes | memoryview:
    return memoryview(_array(tensor)).cast("B") if tensor.size else b""


def _array(tensor: Parameter | np.ndarray) -> np.ndarray:
    array = tensor if isinstance(tensor, np.ndarray) else tensor.asnumpy()
    return np.asarray(array, order="C")


def _header(tensors: Mapping[str, Parameter | np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    """Return the beginning of a safetensors file: the length of a JSON object, and the object."""
    document = json.dumps({**metadata, DIGESTED: True})
    entries: dict[str, Any] = {"__metadata__": {DIGEST_KEY: NO_DIGEST.decode(), METADATA_KEY: document}}
    end = 0
    for name, tensor in tensors.items():
        kind = tensor.dtype if isinstance(tensor, np.ndarray) else np.dtype(ms.dtype_to_nptype(tensor.dtype))
        start, end = end, end + tensor.size * kind.itemsize
        entries[name] = {"dtype": _DTYPES[kind.name], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # what follows begins at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text


def _cannot_write(path: Path, error: OSError) -> CheckpointError:
    reason = error.strerror or first_line(error)
    return CheckpointError(
        f"{path}: cannot write the checkpoint ({reason}); free space or choose another "
        "output folder with hydra.run.dir=..."
    )


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays of a checkpoint by name, and its JSON document, which is empty for a ``.ckpt``.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind or does not match the digest that it holds.
    """
    if path.suffix == ".ckpt":
        return read_ckpt(path), {}
    with readable(path):
        verify(path)
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, metadata_of(file)  # noqa: SIM118


def read_ckpt(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a MindSpore ``.ckpt`` by name, whatever the file is called.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    with readable(path):
        return _parse_ckpt(path.read_bytes())


def _parse_ckpt(content: bytes) -> dict[str, np.ndarray]:
    if content[-17:-10] == _CRC:
        content = content[:-17]
    message = Checkpoint()
    try:
        message.ParseFromString(content)
    except Exception as error:  # the DecodeError of whichever protobuf MindSpore has: see core/environment.py
        raise ValueError(f"damaged, or no .ckpt: {error}") from error
    parts: dict[str, list[bytes]] = {}  # MindSpore writes a large array in several parts
    layouts: dict[str, tuple[np.dtype, list[int]]] = {}
    for element in message.value:
        kind = element.tensor.tensor_type.lower()
        if kind not in _DTYPES:
            raise ValueError(f"{element.tag!r} is of type {element.tensor.tensor_type!r}")
        parts.setdefault(element.tag, []).append(element.tensor.tensor_content)
        layouts[element.tag] = np.dtype(kind), list(element.tensor.dims)
    return {
        name: np.frombuffer(b"".join(parts[name]), kind).reshape([] if dims == [0] else dims)
        for name, (kind, dims) in layouts.items()
    }
