"""Reads a file of weights of any format that is known; the format follows from the content, not from the name."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

from safetensors import SafetensorError

from fcnlab.core.errors import CheckpointError, first_line
from fcnlab.models.checkpoint import read_ckpt
from fcnlab.models.foreign import keras_file, numpy_file, protobuf, torch_file
from fcnlab.models.foreign.caffe_file import LAYERS, read_caffe
from fcnlab.models.foreign.onnx_file import read_onnx
from fcnlab.models.foreign.safetensors_file import read_safetensors
from fcnlab.models.foreign.weights_file import LARGEST, WeightsFile, as_float32

FORMATS = "safetensors, PyTorch's .pth, ONNX, Keras's .h5, .caffemodel, MindSpore's .ckpt and .npz"

_DAMAGE = (
    *(
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        SyntaxError,
        RuntimeError,
        EOFError,
        OSError,
    ),
    *(MemoryError, SafetensorError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""What parsers raise for content that is not what they expect."""


def read(path: Path) -> WeightsFile:
    """Read a file of weights.

    Raises:
        CheckpointError: If the file is missing, damaged or of no known format, or would take too much memory. The
            message is one line.
    """
    try:
        if path.is_dir():
            raise CheckpointError(
                f"{path}: is a folder; give the file of weights, such as checkpoints/best.safetensors in the folder of "
                "a training"
            )
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file of weights")
        file = _read(path)
    except CheckpointError:
        raise
    except _DAMAGE as error:
        reason = first_line(error).strip()
        raise CheckpointError(f"{path}: cannot be read as weights ({reason})") from error
    if not file.arrays:
        raise CheckpointError(f"{path}: holds no weights")
    return file


def _read(path: Path) -> WeightsFile:
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"it has {size} bytes, and {LARGEST} is the most")
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        return _read_zip(path)
    if start.startswith(keras_file.MAGIC):
        return keras_file.read_keras(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return read_safetensors(path)
    if start.startswith(b"\x08"):  # field 1, a number: the version of ONNX
        return read_onnx(path.read_bytes())
    if _is_checkpoint(start[:64]):
        return WeightsFile("MindSpore", {name: as_float32(array) for name, array in read_ckpt(path).items()})
    if start.startswith(b"\n") or any(start.startswith(_key(number)) for number in LAYERS):
        return read_caffe(path.read_bytes())
    raise ValueError(torch_file.why_no_zip(start) or f"known are {FORMATS}")


def _read_zip(path: Path) -> WeightsFile:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.rpartition("/")[2] == torch_file.PICKLE for name in names):
        return torch_file.read_torch(path)
    if any(name.endswith(numpy_file.ENDING) for name in names):
        return numpy_file.read_npz(path)
    if any("/data/weights/" in name for name in names):
        raise ValueError(
            "it is a program of torch.export; write its weights alone: "
            "torch.save(torch.export.load('program.pt2').state_dict, 'weights.pth')"
        )
    raise ValueError(f"it is a zip of something else; known are {FORMATS}")


def _is_checkpoint(start: bytes) -> bool:
    """Tell MindSpore's checkpoint, whose field 1 is a message that starts with a name, from Caffe's name of a net."""
    if not start.startswith(b"\n"):
        return False
    head = memoryview(start + bytes(20))[1:]
    length = next((index + 1 for index, byte in enumerate(head[:10]) if byte < 0x80), 0)
    name = head[length:]
    return name[0] == 0x0A and (name[1] >= len(start) or name[2 + name[1]] in (0x12, 0)) if length else False


def _key(number: int) -> bytes:
    """Return how a field of a net that holds a layer begins."""
    key = number << 3 | protobuf.BYTES
    return bytes([key]) if key < 0x80 else bytes([key & 0x7F | 0x80, key >> 7])
