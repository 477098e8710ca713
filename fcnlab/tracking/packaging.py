"""Packages a checkpoint as an MLflow model: a folder with all that the network needs, and without a pickle."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points, version
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

import fcnlab
from fcnlab.core.checkpoint_header import read_metadata
from fcnlab.core.errors import CheckpointError, TrackingError, first_line
from fcnlab.drawing.palette import class_palette
from fcnlab.registry import ARCHITECTURES, ENCODERS

REQUIREMENTS = ("mindspore", "mlflow", "numpy", "opencv-python-headless", "safetensors")
"""The distributions that the code of a packaged model imports."""

_PACKAGE = Path(fcnlab.__file__).parent
_UV_FILES = ("uv.lock", "pyproject.toml", ".python-version")


def package(checkpoint: Path, folder: Path) -> None:
    """Write an MLflow model that turns images into class indices, N x H x W int32.

    Images are N x H x W x 3 uint8 RGB, or have the channels and bits on which the network was trained. The folder
    appears whole or not at all. No tracking store is needed.

    Args:
        checkpoint: A ``.safetensors`` checkpoint of a training. The model holds it as a hard link, which takes no
            space, where the file system allows.
        folder: The folder to write, which must not exist.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or does not describe its network.
        TrackingError: If the folder cannot be written.
    """
    metadata = read_metadata(checkpoint)
    missing = {"arch", "class_names", "normalisation"} - metadata.keys()
    if missing:
        raise CheckpointError(f"{checkpoint}: does not say its {', '.join(sorted(missing))}; give one of a training")
    channels = int(metadata["arch"].get("in_channels", 3))
    pixels = np.dtype(np.uint16 if metadata.get("bits") == 16 else np.uint8)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # a process that was killed may have left it
        with _quiet():
            mlflow.pyfunc.save_model(
                path=partial,
                python_model=_PACKAGE / "tracking" / "served_model.py",
                artifacts={"checkpoint": checkpoint.absolute().as_uri()},  # MLflow misreads a % or ? in a path
                code_paths=[str(_PACKAGE)],
                signature=_signature(channels, pixels),
                input_example=np.zeros((1, 32, 32, channels), pixels),
                pip_requirements=requirements(metadata["arch"]["name"], metadata["arch"].get("encoder")),
                metadata={
                    "class_names": metadata["class_names"],
                    "palette": class_palette(metadata["class_names"], metadata.get("palette") or ()).tolist(),
                },
            )
        for name in _UV_FILES:  # MLflow adds those of the working directory, which may belong to any project
            (partial / name).unlink(missing_ok=True)
        _share(checkpoint, partial / "artifacts" / checkpoint.name)
        partial.rename(folder)
    except (MlflowException, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrackingError(f"{folder}: cannot write the MLflow model ({first_line(error)})") from error


def _signature(channels: int, pixels: np.dtype) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([TensorSpec(pixels, (-1, -1, -1, channels))]),
        outputs=Schema([TensorSpec(np.dtype(np.int32), (-1, -1, -1))]),
    )


def warm_up() -> None:
    """Let MLflow list the installed packages, which takes half a second at the first model of a process.

    The sending process calls this while it has nothing to do, so that the end of the training does not wait for it.
    """
    warn_dependency_requirement_mismatches([f"mlflow=={version('mlflow')}"])


def requirements(architecture: str, encoder: str | None = None) -> list[str]:
    """Return the requirements of a model for pip, pinned to the versions that are installed here.

    Args:
        architecture: The name of the architecture.
        encoder: The name of its encoder, if it has one.
    """
    plugins = [*entry_points(group=ARCHITECTURES.group, name=architecture)]
    if encoder is not None:
        plugins += entry_points(group=ENCODERS.group, name=encoder)
    names = {*REQUIREMENTS, *(plugin.dist.name for plugin in plugins if plugin.dist)}
    return [f"{name}=={version(name)}" for name in sorted(names)]


def _share(original: Path, copy: Path) -> None:
    """Replace a copy by a hard link. The content cannot change, since a checkpoint is never written in place."""
    link = copy.with_name(f".{copy.name}.link")
    with suppress(OSError):  # the copy stays on another file system, or one without links
        os.link(original, link)
        link.replace(copy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence MLflow's log, which tells each of its steps, except for warnings."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
