"""Writes a trained network for other programs, and checks that the file computes the same logits."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from fcnlab.core.errors import ExportError
from fcnlab.core.files import replacing
from fcnlab.experiment.loading import read_network
from fcnlab.inference.trained import TrainedNetwork

log = logging.getLogger(__name__)

SIZES = ((64, 64), (97, 130), (160, 224))
"""The heights and widths of the images that an export is checked with."""

TOLERANCE = 1e-4
"""The largest difference between two logits; beyond a logit of 10, a hundred-thousandth of the largest logit."""


def export_network(network: TrainedNetwork, path: Path, file_format: str) -> None:
    """Write a network to a file, unless the file computes other logits than the network.

    Args:
        network: The network, made with MindSpore's own operators.
        path: The file, which appears whole or not at all; an older one stays if this fails.
        file_format: "mindir", "onnx" or "safetensors", which must also be the file's suffix.

    Raises:
        ExportError: If the file cannot be written, or its logits differ.
    """
    if path.suffix != f".{file_format}":
        raise ExportError(f"output={path}: must end in .{file_format}, since format={file_format}")
    try:
        with replacing(path) as temporary:
            written = temporary.with_suffix(path.suffix)  # MindSpore adds and expects its own suffix
            try:
                _write(file_format, written, network)
                difference = _check(file_format, written, network)
                written.chmod(0o644)  # MindSpore and safetensors make files that only their owner may read
                written.replace(temporary)
            finally:
                written.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{path}: cannot write ({error.strerror or error}); choose another output=<file>") from error
    sizes = ", ".join(f"{height} x {width}" for height, width in SIZES)
    log.info("%s: logits differ from the network's by at most %.1e on images of %s", path, difference, sizes)


def default_path(checkpoint: str, file_format: str) -> Path:
    """Return the file that an export goes to by default: in the working directory, named after the checkpoint."""
    name = re.sub(r"^(runs|models):/", "", checkpoint)
    name = Path(checkpoint).stem if name == checkpoint else re.sub(r"[^\w\-]+", "-", name)
    return Path(f"{name}.{file_format}")


def descriptive_metadata(network: TrainedNetwork) -> dict[str, str]:
    """Return what another program must know to use a network, as JSON by key.

    ``class_names``, ``palette``, ``mean`` and ``std`` are lists; ``fcnlab`` is the checkpoint's whole description.
    """
    values: dict[str, Any] = {
        "class_names": network.class_names,
        "palette": network.palette.tolist(),
        **network.normalisation,
        "input": f"N x {network.channels} x H x W float32{' RGB' if network.channels == 3 else ''}, "
        f"(pixel / {65535 if network.bits == 16 else 255} - mean) / std, any H and W from 32 up",
        "output": "N x C x H x W float32 logits",
        "fcnlab": network.metadata,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def _write(file_format: str, path: Path, network: TrainedNetwork) -> None:
    metadata = descriptive_metadata(network)
    if file_format == "onnx":
        from fcnlab.inference.onnx_export import write_onnx

        write_onnx(path, network.network, network.metadata["arch"], metadata)
    elif file_format == "mindir":
        from fcnlab.inference.mindir_export import write_mindir

        write_mindir(path, network.network, metadata, network.channels)
    else:
        from safetensors.numpy import save_file

        parameters = network.network.parameters_dict()
        arrays = {name: np.ascontiguousarray(parameter.asnumpy()) for name, parameter in parameters.items()}
        save_file(arrays, str(path), metadata)


def _check(file_format: str, path: Path, network: TrainedNetwork) -> float:
    """Return the largest difference between the logits of the file and of the network.

    Raises:
        ExportError: If it is too large.
    """
    run = _runner(file_format, path)
    _accept_any_size(network)
    random = np.random.default_rng(0)
    largest = 0.0
    for height, width in SIZES:
        images = random.standard_normal((1, network.channels, height, width), dtype=np.float32)
        expected, found = network(Tensor(images)).asnumpy(), run(images)
        if expected.shape != found.shape:
            raise ExportError(f"{path}: gives logits of shape {found.shape} where the network gives {expected.shape}")
        difference = float(np.abs(expected - found).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max()) / 10):
            raise ExportError(f"{path}: a logit differs from the network's by {difference:.1e}; please report this")
        largest = max(largest, difference)
    return largest


def _runner(file_format: str, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images to logits that runs the file."""
    if file_format == "onnx":
        from fcnlab.inference.onnx_export import onnx_runner

        return onnx_runner(path)
    if file_format == "mindir":
        from fcnlab.inference.mindir_export import mindir_runner

        return mindir_runner(path)
    loaded = read_network(path, str(path))
    _accept_any_size(loaded)
    return lambda images: loaded(Tensor(images)).asnumpy()


def _accept_any_size(network: TrainedNetwork) -> None:
    """Let one compilation of the network serve all sizes."""
    network.network.set_inputs(Tensor(shape=[None, network.channels, None, None], dtype=ms.float32))
