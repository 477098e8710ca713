"""Downloads checkpoints from runs and models from the registry."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from fcnlab.core.credentials import redact
from fcnlab.core.errors import CheckpointError, TrackingError, first_line
from fcnlab.tracking.address import default_store, settled


def download(uri: str, tracking_uri: str | None, folder: str) -> Path:
    """Download the checkpoint of a run, or a registered model.

    Args:
        uri: ``runs:/<run id>[/<artifact path>]``, ``models:/<name>@<alias>`` or ``models:/<name>/<version>``.
        tracking_uri: The store; None for the one that MLflow is set to, or else the default.
        folder: The folder to copy to.

    Returns:
        The copied file or folder.

    Raises:
        CheckpointError: If it cannot be downloaded.
    """
    if uri.startswith("runs:/") and uri.rstrip("/").count("/") == 1:
        uri = f"{uri.rstrip('/')}/checkpoints/best.safetensors"
    try:
        tracking_uri = _settled(tracking_uri)
        source = _source_of_model(uri, tracking_uri) if uri.startswith("models:/") and tracking_uri else uri
        return Path(download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=tracking_uri))
    except TrackingError as error:
        raise CheckpointError(f"{uri}: {error}") from error
    except (MlflowException, OSError) as error:
        raise CheckpointError(f"{uri}: {redact(first_line(error))}; is MLFLOW_TRACKING_URI right?") from error


def _settled(tracking_uri: str | None) -> str | None:
    """Return the settled address of the store; None if MLflow is set to one."""
    if tracking_uri:
        return settled(tracking_uri)
    if mlflow.is_tracking_uri_set() or os.environ.get("MLFLOW_REGISTRY_URI"):
        return None
    return default_store()


def _source_of_model(uri: str, registry_uri: str) -> str:
    """Return where the files of a registered model are; MLflow itself would ask the registry of its environment."""
    client = MlflowClient(registry_uri, registry_uri)
    name, _, alias = uri.removeprefix("models:/").partition("@")
    name, _, version = name.partition("/")
    if alias:
        version = client.get_model_version_by_alias(name, alias).version
    return client.get_model_version_download_uri(name, version)
