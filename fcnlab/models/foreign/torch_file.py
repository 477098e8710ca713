"""PyTorch's ``.pth`` and ``.pt`` files, as every version since 1.6 writes them: a zip with a pickle and storages.

Nothing in the pickle is executed, see `fcnlab.models.foreign.pickled`, and PyTorch is not needed.
"""

from __future__ import annotations

import zipfile
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fcnlab.models.foreign.archive import read_member
from fcnlab.models.foreign.pickled import Global, Opaque, unpickle
from fcnlab.models.foreign.weights_file import WeightsFile, as_float32, check_size, from_bfloat16

PICKLE = "data.pkl"

_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""The magic number that a file of PyTorch before 1.6 begins with, as pickles of any protocol hold it."""

_TAR_MAGIC = (257, b"ustar")
"""The place and the text by which a tar archive is known, as PyTorch before 0.2 wrote it."""

_LARGEST_PICKLE = 2**24  # bytes; that of VGG-16 has 3000
_DEPTH = 8  # of containers in which a state_dict is looked for

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2")
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_OPAQUE = {
    *(("torch", name) for name in ("Size", "device", "float64", "float32", "float16", "bfloat16", "int64", "int32")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(("numpy", name) for name in ("dtype", "ndarray")),
    *((module, name) for module in ("builtins", "__builtin__") for name in ("dict", "list", "set", "int", "float")),
    ("collections", "defaultdict"),
    ("_codecs", "encode"),
}
"""What checkpoints of a training hold beside weights. None of it is imported or called."""


class _Storage(NamedTuple):
    kind: str
    key: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def why_no_zip(start: bytes) -> str | None:
    """Return why a file is not read, and the way out, if it is one of PyTorch's or Python's other formats.

    Args:
        start: The first 512 bytes of the file.
    """
    place, text = _TAR_MAGIC
    if _LEGACY_MAGIC in start[:64] or start[place : place + len(text)] == text:
        return (
            "PyTorch wrote it in the way of before version 1.6; write it again: "
            "torch.save(torch.load('old.pth', map_location='cpu'), 'new.pth')"
        )
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return (
            "it is a pickle of Python, which can run anything and is not opened; write its arrays with "
            "torch.save(state_dict, 'weights.pth') or numpy.savez('weights.npz', **arrays)"
        )
    return None


def read_torch(path: Path) -> WeightsFile:
    """Read the tensors of a ``.pth`` or ``.pt`` file.

    Of a checkpoint that holds several state_dicts it is the one with the most tensors, as the optimizer keeps its own
    for each parameter; of several with as many, the first. The metadata tell its place in ``state_dict``, and the
    places of the others with as many in ``other_state_dicts``.

    Raises:
        ValueError: If the file is damaged or holds more than tensors in plain containers. Others of Python's and
            `zipfile`'s errors may come of damage.
    """
    file_size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        prefix = next(name for name in archive.namelist() if name.rpartition("/")[2] == PICKLE).removesuffix(PICKLE)
        if f"{prefix}constants.pkl" in archive.NameToInfo or f"{prefix}code/" in "\n".join(archive.namelist()):
            raise ValueError(
                "it is a TorchScript program; write its weights alone: "
                "torch.save(torch.jit.load('script.pt').state_dict(), 'weights.pth')"
            )
        root = unpickle(read_member(archive, prefix + PICKLE, _LARGEST_PICKLE), _find, _call, _load)
        (place, tensors), others = _state_dict(root)
        check_size((tensor.shape for tensor in tensors.values()), file_size)
        order = "<"
        if f"{prefix}byteorder" in archive.NameToInfo and read_member(archive, f"{prefix}byteorder", 16) == b"big":
            order = ">"
        read: dict[str, tuple[_Storage, np.ndarray]] = {}
        arrays = {}
        for name, tensor in tensors.items():
            storage = tensor.storage
            if storage.key not in read or read[storage.key][0] != storage:
                read[storage.key] = storage, _read_storage(archive, prefix, storage, order)
            arrays[name] = _view(tensor, read[storage.key][1])
    metadata = {"state_dict": place} if place else {}
    return WeightsFile("PyTorch", arrays, metadata | ({"other_state_dicts": others} if others else {}))


def _find(name: Global) -> Any:
    if name.module == "torch" and name.name in _STORAGES:
        return name
    if name.module == "torch._utils" and name.name in (*_TENSORS, *_PARAMETERS):
        return name
    if name == ("collections", "OrderedDict") or name in _OPAQUE:
        return name
    wanted = ascii(f"{name.module}.{name.name}"[:80]).strip("'")
    raise ValueError(
        f"it asks for {wanted}, which is more than weights; in PyTorch, save these alone: "
        "torch.save(model.state_dict(), 'weights.pth')"
    )


def _call(function: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(function, Global):
        raise ValueError("its pickle is damaged")
    if function.module == "torch._utils" and function.name in _TENSORS:
        return _tensor(*arguments[:4])
    if function.module == "torch._utils":
        if not isinstance(arguments[0], _Tensor):
            raise ValueError("its pickle is damaged")
        return arguments[0]
    if function == ("collections", "OrderedDict"):
        pairs = arguments[0] if arguments else []
        if not all(isinstance(key, str) for key, _ in pairs):
            raise ValueError("its pickle is damaged")
        return dict(pairs)
    return Opaque()


def _load(persistent_id: Any) -> _Storage:
    kind, storage, key, _, size = persistent_id
    if kind != "storage" or not isinstance(storage, Global) or storage.name not in _STORAGES:
        raise ValueError("it keeps something else than tensors")
    if not isinstance(key, str) or type(size) is not int or size < 0:
        raise ValueError("its pickle is damaged")
    return _Storage(storage.name, key, size)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a tensor is damaged")
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("a tensor is damaged")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _state_dict(root: Any) -> tuple[tuple[str, dict[str, _Tensor]], list[str]]:
    """Return the first dict with the most tensors and its place, and the places of the others with as many.

    Each container is looked at once.
    """
    best: tuple[str, dict[str, _Tensor]] = "", {}
    others: list[str] = []
    waiting, seen = deque([("", 0, root)]), set()
    while waiting:
        place, depth, container = waiting.popleft()
        if id(container) in seen or depth > _DEPTH:
            continue
        seen.add(id(container))
        if isinstance(container, dict):
            tensors = {key: value for key, value in container.items() if isinstance(value, _Tensor)}
            if tensors and len(tensors) >= len(best[1]) and all(isinstance(key, str) for key in tensors):
                if len(tensors) > len(best[1]):
                    best, others = (place, tensors), []
                else:
                    others.append(place)
            children = container.items()
        else:
            children = enumerate(container)
        for key, value in children:
            if isinstance(value, dict | list) or (isinstance(value, tuple) and not isinstance(value, _Tensor)):
                waiting.append((f"{place}.{key}"[:200].lstrip("."), depth + 1, value))
    if not best[1]:
        raise ValueError(
            "it holds no tensors by name; save a state_dict: torch.save(model.state_dict(), 'weights.pth')"
        )
    return best, others


def _read_storage(archive: zipfile.ZipFile, prefix: str, storage: _Storage, order: str) -> np.ndarray:
    dtype = np.dtype(_STORAGES[storage.kind]).newbyteorder(order)
    size = storage.size * dtype.itemsize
    content = read_member(archive, f"{prefix}data/{storage.key}", size)
    if len(content) != size:
        raise ValueError(f"data/{storage.key} has {len(content)} bytes, and {size} are expected")
    numbers = np.frombuffer(content, dtype)
    if storage.kind == "BFloat16Storage":
        return from_bfloat16(numbers.astype("<u2").tobytes())
    return numbers


def _view(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, np.float32)
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    # Within the storage, as `_tensor` has checked.
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(as_float32(view)).reshape(tensor.shape)
