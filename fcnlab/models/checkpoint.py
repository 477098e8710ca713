"""Weights by name: written as safetensors, read from safetensors or MindSpore's own ``.ckpt``. Neither is pickled."""

from __future__ import annotations

import hashlib
import json
import logging
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
from fcnlab.models.finite import first_nonfinite, is_finite

log = logging.getLogger(__name__)

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
_PIECE = 2**22  # bytes that are written and hashed at a time
_CKPT_SLICE = 2**29  # bytes of an array that MindSpore puts into one message
_CRC = b"crc_num"  # before the ten bytes of a checksum that MindSpore may put at the end of a .ckpt
_FIRST = "encoder.block1.conv1.weight"
_HEADS = ("score", "upsample")  # layers whose shape depends on the classes or the stride


def save_weights(path: Path, network: nn.Cell, metadata: Mapping[str, Any]) -> None:
    """Write all of a network's parameters and a JSON document; the file appears whole or not at all.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    save_parameters(path, network.parameters_dict(), metadata)


def save_parameters(
    path: Path,
    parameters: Mapping[str, Parameter],
    metadata: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write parameters by name and a JSON document as safetensors; the file appears whole or not at all.

    It is written in pieces, where the library would copy all parameters twice, and holds the SHA-256 of itself: of
    everything in it, with zeros in the place of the digest.

    Args:
        path: Of the file; its folder is made when missing.
        parameters: By name.
        metadata: The document.
        arrays: More to write, by names of their own.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    tensors: dict[str, Parameter | np.ndarray] = {**parameters, **(arrays or {})}
    try:
        with replacing(path) as temporary, temporary.open("wb") as file, ThreadPoolExecutor(1) as pool:
            header = _header(tensors, metadata)
            digest = hashlib.sha256()
            for piece in _pieces(chain([header], map(_content, tensors.values()))):
                hashing = pool.submit(digest.update, piece)
                file.write(piece)  # both leave the interpreter to the other
                hashing.result()
            file.seek(header.index(NO_DIGEST))
            file.write(digest.hexdigest().encode())
    except OSError as error:
        raise _cannot_write(path, error) from error


def save_ckpt(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as MindSpore's ``.ckpt``; the file appears whole or not at all.

    The bytes are those of `mindspore.save_checkpoint`, which writes each parameter by itself and takes half as long
    again.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            for piece in _pieces(entry for name, array in arrays.items() for entry in _ckpt_entries(name, array)):
                file.write(piece)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _ckpt_entries(name: str, array: np.ndarray) -> Iterator[bytes | memoryview]:
    """An array as MindSpore writes it: a message, or several when it is large; its bytes are not copied."""
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
    """How protobuf begins a field of so many bytes: its number and wire type 2, and the length in sevens of bits."""
    head = [number << 3 | 2]
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*head, length])


def _pieces(parts: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The content of a file, what is small joined: whoever leaves the interpreter has to wait to get it back."""
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
    """The beginning of a safetensors file: the length of a JSON object, and the object."""
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
    """Read a checkpoint: its arrays by name, and its JSON document (empty for a ``.ckpt``).

    A file with a digest must match it.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    with readable(path):
        if path.suffix == ".ckpt":
            return _read_ckpt(path), {}
        verify(path)
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, metadata_of(file)  # noqa: SIM118


def _read_ckpt(path: Path) -> dict[str, np.ndarray]:
    """A ``.ckpt``'s arrays by name.

    Not `mindspore.load_checkpoint`: it copies as many bytes as there are into as many as the shape says, and a damaged
    file so writes over other memory.
    """
    content = path.read_bytes()
    if content[-17:-10] == _CRC:
        content = content[:-17]
    message = Checkpoint()
    try:
        message.ParseFromString(content)
    except Exception as error:  # DecodeError, of whichever copy of protobuf MindSpore has: see environment.py
        raise ValueError(f"damaged, or no .ckpt: {error}") from error
    parts: dict[str, list[bytes]] = {}  # MindSpore writes a large array in several
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


def load_weights(network: nn.Cell, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Set every parameter of a network from arrays of the same names and shapes.

    NaN and infinity are set as they are, with a warning: a network may be looked at because of them.

    Raises:
        CheckpointError: Naming the first parameter that is missing or of another shape.
    """
    for name, parameter in network.parameters_dict().items():
        if name not in arrays:
            raise CheckpointError(f"{source}: has no {name}; it belongs to another network")
        if arrays[name].shape != parameter.shape:
            raise CheckpointError(_other_shape(source, name, arrays[name], parameter))
        _set(parameter, arrays[name])
    name = first_nonfinite(network.parameters_dict())
    if name is not None:
        log.warning("%s: %s holds NaN or infinity, which what it predicts need not show", source, name)


def initialise_from(network: nn.Cell, arrays: Mapping[str, np.ndarray], source: str) -> list[str]:
    """Start a network from another's weights; what only the new one has keeps its initial values.

    This is how the paper trains in stages (section 4.2: FCN-16s from FCN-32s, FCN-8s from FCN-16s), and how a network
    moves to other classes: score and upsampling layers of another shape are left alone, everything else must fit. So
    is the first convolution, where the images have another number of channels.

    Returns:
        The names of the parameters that were left alone.

    Raises:
        CheckpointError: If a shared layer has another shape, or NaN or infinity, or nothing at all fits.
    """
    left = []
    for name, parameter in network.parameters_dict().items():
        array = arrays.get(name)
        if array is not None and array.shape == parameter.shape:
            if not is_finite(array):
                raise CheckpointError(f"{source}: {name} holds NaN or infinity; start from another checkpoint")
            _set(parameter, array)
        elif array is None or name.startswith(_HEADS) or _of_other_images(name, array, parameter):
            left.append(name)
        else:
            raise CheckpointError(_other_shape(source, name, array, parameter))
    if len(left) == len(network.parameters_dict()):
        raise CheckpointError(f"{source}: none of its names is one of this network's; it belongs to another network")
    return left


def _of_other_images(name: str, array: np.ndarray, parameter: ms.Parameter) -> bool:
    """Whether nothing but the number of the images' channels differs."""
    shapes = (array.shape, parameter.shape)
    return name == _FIRST and len({(shape[:1], shape[2:]) for shape in shapes}) == 1


def _set(parameter: ms.Parameter, array: np.ndarray) -> None:
    parameter.set_data(ms.Tensor(np.ascontiguousarray(array, dtype=np.float32)))


def _other_shape(source: str, name: str, array: np.ndarray, parameter: ms.Parameter) -> str:
    return (
        f"{source}: {name} has shape {tuple(array.shape)}, this network's has {tuple(parameter.shape)}; "
        "use the arch.width, arch.norm and dataset.num_classes it was trained with"
    )
