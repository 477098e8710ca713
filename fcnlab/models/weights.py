"""Weights by name: written as safetensors, read from safetensors or MindSpore's own ``.ckpt``. Neither is pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fcnlab.errors import CheckpointError
from fcnlab.files import replacing

_METADATA_KEY = "fcnlab"  # safetensors metadata maps strings to strings; ours is one JSON document
_HEADS = ("score", "upsample")  # layers whose shape depends on the classes or the stride


def save_weights(path: Path, network: nn.Cell, metadata: Mapping[str, Any]) -> None:
    """Write all of a network's parameters and a JSON document; the file appears whole or not at all.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    tensors = {name: np.ascontiguousarray(parameter.asnumpy()) for name, parameter in network.parameters_dict().items()}
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(save(tensors, metadata={_METADATA_KEY: json.dumps(metadata)}))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot write the checkpoint ({error.strerror}); free space or choose another "
            "output folder with hydra.run.dir=..."
        ) from error


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint: its arrays by name, and its JSON document (empty for a ``.ckpt``).

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    with _readable(path):
        if path.suffix == ".ckpt":
            return {name: parameter.asnumpy() for name, parameter in ms.load_checkpoint(str(path)).items()}, {}
        with safe_open(str(path), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, _metadata(file)  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a safetensors checkpoint's JSON document alone, however large the weights are.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    with _readable(path), safe_open(str(path), framework="numpy") as file:
        return _metadata(file)


def _metadata(file: safe_open) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        yield
    except (SafetensorError, ValueError, OSError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({str(error).strip().splitlines()[0]}); "
            "give a .safetensors or a MindSpore .ckpt file"
        ) from error


def load_weights(network: nn.Cell, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Set every parameter of a network from arrays of the same names and shapes.

    Raises:
        CheckpointError: Naming the first parameter that is missing or of another shape.
    """
    for name, parameter in network.parameters_dict().items():
        if name not in arrays:
            raise CheckpointError(f"{source}: has no {name}; it belongs to another network")
        if arrays[name].shape != parameter.shape:
            raise CheckpointError(_other_shape(source, name, arrays[name], parameter))
        _set(parameter, arrays[name])


def initialise_from(network: nn.Cell, arrays: Mapping[str, np.ndarray], source: str) -> list[str]:
    """Start a network from another's weights; what only the new one has keeps its initial values.

    This is how the paper trains in stages (section 4.2: FCN-16s from FCN-32s, FCN-8s from FCN-16s), and how a network
    moves to other classes: score and upsampling layers of another shape are left alone, everything else must fit.

    Returns:
        The names of the parameters that were left alone.

    Raises:
        CheckpointError: If a shared layer has another shape, or nothing at all fits.
    """
    left = []
    for name, parameter in network.parameters_dict().items():
        array = arrays.get(name)
        if array is not None and array.shape == parameter.shape:
            _set(parameter, array)
        elif array is None or name.startswith(_HEADS):
            left.append(name)
        else:
            raise CheckpointError(_other_shape(source, name, array, parameter))
    if len(left) == len(network.parameters_dict()):
        raise CheckpointError(f"{source}: none of its names is one of this network's; it belongs to another network")
    return left


def _set(parameter: ms.Parameter, array: np.ndarray) -> None:
    parameter.set_data(ms.Tensor(np.ascontiguousarray(array, dtype=np.float32)))


def _other_shape(source: str, name: str, array: np.ndarray, parameter: ms.Parameter) -> str:
    return (
        f"{source}: {name} has shape {tuple(array.shape)}, this network's has {tuple(parameter.shape)}; "
        "use the arch.width, arch.norm and dataset.num_classes it was trained with"
    )
