"""The export of arrays as a ``.pth`` file, which ``torch.load`` opens; PyTorch is not needed to write it."""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

_ROOT = "archive/"
_ALIGNMENT = 64  # bytes, as PyTorch has it, so that torch.load(..., mmap=True) works
_STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}
_DATE = (1980, 1, 1, 0, 0, 0)  # so that the same network gives the same file


def write_torch(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays as a state_dict in the format of PyTorch since 1.6: a zip with a pickle and the tensors' contents.

    ``torch.load(path)`` gives an ``OrderedDict`` of tensors on the CPU, also with ``weights_only=True``.

    Args:
        path: The file.
        arrays: Float32 or int64 arrays by name.
        metadata: The entries of ``extra/fcnlab.txt``, one a line, for people; ``torch.load`` leaves it unread.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, "data.pkl", b"".join(_pickle(arrays)))
        _write(archive, "byteorder", b"little")
        for index, array in enumerate(arrays.values()):
            _write(archive, f"data/{index}", _content(array))
        _write(archive, "extra/fcnlab.txt", "".join(f"{key}: {value}\n" for key, value in metadata.items()).encode())
        _write(archive, "version", b"3\n")


def _write(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Add a member whose content begins at a multiple of `_ALIGNMENT`."""
    member = zipfile.ZipInfo(_ROOT + name, _DATE)
    member.external_attr = 0o644 << 16
    begins = archive.fp.tell() + zipfile.sizeFileHeader + len(member.filename)
    padding = -(begins + 4) % _ALIGNMENT
    member.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    archive.writestr(member, content)


def _content(array: np.ndarray) -> bytes | memoryview:
    return memoryview(np.ascontiguousarray(array, array.dtype.newbyteorder("<"))).cast("B") if array.size else b""


def _pickle(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """Yield the instructions of a pickle of protocol 2 that make an ``OrderedDict`` of tensors."""
    yield pickle.PROTO + b"\x02" + _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    yield pickle.MARK
    for index, (name, array) in enumerate(arrays.items()):
        storage = ("storage", _STORAGES[array.dtype.name], str(index), "cpu", array.size)
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        yield _value(name) + _global("torch._utils", "_rebuild_tensor_v2") + pickle.MARK
        yield pickle.MARK + _value(storage[0]) + _global("torch", storage[1])
        yield b"".join(map(_value, storage[2:])) + pickle.TUPLE + pickle.BINPERSID
        yield _value(0) + _tuple(array.shape) + _tuple(strides) + pickle.NEWFALSE
        yield _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE  # the hooks, of which none are
        yield pickle.TUPLE + pickle.REDUCE
    yield pickle.SETITEMS + pickle.STOP


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tuple(values: Iterable[int]) -> bytes:
    return pickle.MARK + b"".join(map(_value, values)) + pickle.TUPLE


def _value(value: str | int) -> bytes:
    """Return the instructions that make a text or a number: a pickle without its beginning and its end."""
    return pickle.dumps(value, 2)[2:-1]
