"""Trained networks, ready to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mindspore import nn

from fcnlab.errors import CheckpointError, ConfigError, first_line
from fcnlab.models import build_model
from fcnlab.models.weights import load_weights, read_weights

_LARGEST = {"width": 4, "num_classes": 255}
"""As in `fcnlab.config.schema`, which a served model does without."""


def load(source: str | Path) -> nn.Cell:
    """Build the network that a checkpoint describes, with its weights, in evaluation mode.

    Args:
        source: A ``.safetensors`` checkpoint of this package, or ``runs:/<run id>`` for the best one of an MLflow run
            (``runs:/<run id>/<artifact path>`` for another).

    Raises:
        CheckpointError: If it cannot be found or read, or does not say which network it is of.
    """
    path = _download(str(source)) if str(source).startswith("runs:/") else Path(source)
    network, _ = read_network(path, str(source))
    return network


def read_network(path: Path, source: str) -> tuple[nn.Cell, dict[str, Any]]:
    """Build the network of a checkpoint file, in evaluation mode, and read what the file says of it.

    Args:
        path: The file.
        source: What errors call it.

    Raises:
        CheckpointError: As `load` does.
    """
    arrays, metadata = read_weights(path)
    if "arch" not in metadata:
        raise CheckpointError(f"{source}: does not say which network it is of; use build_model(...) and init_from")
    network = _build(metadata["arch"], source)
    load_weights(network, arrays, source)
    return network.set_train(False), metadata


def _build(arch: Any, source: str) -> nn.Cell:
    """Build what a file describes, which may be anybody's: nothing larger than a configuration may ask for."""
    try:
        for key, largest in _LARGEST.items():
            if not arch[key] <= largest:
                raise ValueError(f"{key} is {arch[key]}")
        return build_model(**arch)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: describes no network that can be built ({first_line(error)})") from error


def _download(uri: str) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    if uri.count("/") == 1:
        uri = f"{uri}/checkpoints/best.safetensors"
    try:
        return Path(download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        raise CheckpointError(f"{uri}: {first_line(error)}; is MLFLOW_TRACKING_URI right?") from error
