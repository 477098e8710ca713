"""Loads trained networks from checkpoints, runs and registered models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mindspore import nn

from fcnlab.config.schema import ArchConfig, FolderConfig
from fcnlab.core.errors import CheckpointError, ConfigError, first_line
from fcnlab.inference.trained import TrainedNetwork
from fcnlab.models import build_model
from fcnlab.models.checkpoint import read_weights
from fcnlab.models.weights import load_weights
from fcnlab.recording import journal

_LARGEST = {
    argument: cls.__dataclass_fields__[key].metadata["maximum"]
    for argument, cls, key in (
        ("width", ArchConfig, "width"),
        ("num_classes", FolderConfig, "num_classes"),
        ("in_channels", FolderConfig, "channels"),
    )
}
"""The largest value that the configuration allows for each argument of `build_model`."""


def load(source: str | Path, tracking_uri: str | None = None) -> TrainedNetwork:
    """Build the network that a checkpoint describes, with its weights, in evaluation mode.

    Args:
        source: A ``.safetensors`` checkpoint of this package; the output folder of a training; ``runs:/<run id>`` for
            the best checkpoint of an MLflow run, or ``runs:/<run id>/<artifact path>`` for another one; or a registered
            model, ``models:/<name>@<alias>`` or ``models:/<name>/<version>``.
        tracking_uri: The tracking store; by default that of ``MLFLOW_TRACKING_URI``, else ``mlflow.db``.

    Returns:
        A cell from normalised images to logits, whose ``predict(image)`` gives the label map of a plain image.

    Raises:
        CheckpointError: If the checkpoint cannot be found or read, or does not describe its network.
    """
    with checkpoint_file(source, tracking_uri) as path:
        return read_network(path, str(source))


def read_network(path: Path, source: str) -> TrainedNetwork:
    """Build the network of a checkpoint file.

    Args:
        path: The file.
        source: The name of the checkpoint in errors.

    Raises:
        CheckpointError: If the file cannot be read, or does not describe its network.
    """
    arrays, metadata = read_weights(path)
    return TrainedNetwork(restore(arrays, metadata, source), metadata, source)


def restore(arrays: dict[str, Any], metadata: dict[str, Any], source: str) -> nn.Cell:
    """Build the plain network from the arrays and the description that `read_weights` returned.

    Raises:
        CheckpointError: If the description names no network, or the weights do not fit it.
    """
    if "arch" not in metadata:
        raise CheckpointError(f"{source}: does not say which network it is of; use build_model(...) and init_from")
    network = _build(metadata["arch"], source)
    load_weights(network, arrays, source)
    return network.set_train(False)


def _build(arch: Any, source: str) -> nn.Cell:
    """Build the network that a file from an unknown author describes, unless no configuration allows its size."""
    try:
        for key, largest in _LARGEST.items():
            if key in arch and not arch[key] <= largest:
                raise ValueError(f"{key} is {arch[key]}")
        return build_model(**arch)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: describes no network that can be built ({first_line(error)})") from error


@contextmanager
def checkpoint_file(source: str | Path, tracking_uri: str | None = None) -> Iterator[Path]:
    """Find the checkpoint of a source as `load` takes it, and download it from the tracking store if it is there.

    Yields:
        The checkpoint's file; a downloaded copy is removed afterwards.

    Raises:
        CheckpointError: If the checkpoint cannot be found.
    """
    if not str(source).startswith(("runs:/", "models:/")):
        yield _in_folder(Path(source).expanduser(), str(source))
        return
    from fcnlab.tracking.download import download  # not at the top: it imports MLflow

    with TemporaryDirectory(prefix="fcnlab-") as folder:
        yield _in_folder(download(str(source), tracking_uri, folder), str(source))


def _in_folder(path: Path, source: str) -> Path:
    """Return the path of a file, or of the checkpoint in a training's output folder or an MLflow model."""
    if not path.is_dir():
        return path
    best = path / journal.CHECKPOINTS / "best.safetensors"
    found = [best] if best.is_file() else sorted((path / "artifacts").glob("*.safetensors"))
    if not found:
        raise CheckpointError(
            f"{source}: is a folder with neither checkpoints/best.safetensors nor a model's artifacts; give the file"
        )
    return found[0]
