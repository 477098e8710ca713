"""``python -m fcnlab.export``: write a trained network for other programs, and check what was written."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import numpy as np
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import ExportConfig
from fcnlab.core.errors import ExportError, FcnlabError
from fcnlab.core.files import replacing

if TYPE_CHECKING:
    from fcnlab.inference import TrainedNetwork

log = logging.getLogger(__name__)

SIZES = ((64, 64), (97, 130), (160, 224))
"""Heights and widths of the images that an export is checked with."""

TOLERANCE = 1e-4
"""Largest difference of a logit from the network's; of logits beyond 10, a hundred-thousandth of the largest."""


def export(config: ExportConfig) -> Path:
    """Write a network and check that what was written computes the same logits.

    Args:
        config: From ``fcnlab.config.compose([...], "export")``, or built by hand.

    Returns:
        The file.

    Raises:
        FcnlabError: For everything that the user can mend. Nothing is left then, and an older file stays.
    """
    configuration.validate(config)
    # Not at the top: `--help` and a wrong key should not wait for MindSpore.
    from fcnlab.core import device
    from fcnlab.experiment.loading import load
    from fcnlab.kernels import stock_operators

    device.configure(config.device, key="device")
    with stock_operators():  # what other programs know
        return _export(load(config.checkpoint, config.tracking.uri), config)


def _export(network: TrainedNetwork, config: ExportConfig) -> Path:
    path = Path(config.output).expanduser() if config.output else default_path(config.checkpoint, config.format)
    if path.suffix != f".{config.format}":
        raise ExportError(f"output={path}: must end in .{config.format}, since format={config.format}")
    try:
        with replacing(path) as temporary:
            # MindSpore adds its ending to a name without it, and looks at the ending when it loads.
            written = temporary.with_suffix(path.suffix)
            try:
                _write(config.format, written, network)
                difference = _check(config.format, written, network)
                written.chmod(0o644)  # MindSpore and safetensors leave files that only their owner may read
                written.replace(temporary)
            finally:
                written.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{path}: cannot write ({error.strerror or error}); choose another output=<file>") from error
    sizes = ", ".join(f"{height} x {width}" for height, width in SIZES)
    log.info("%s: logits differ from the network's by at most %.1e on images of %s", path, difference, sizes)
    return path


def default_path(checkpoint: str, file_format: str) -> Path:
    """Where an export goes that was not told: a file in the working directory, named after the checkpoint."""
    name = re.sub(r"^(runs|models):/", "", checkpoint)
    name = Path(checkpoint).stem if name == checkpoint else re.sub(r"[^\w\-]+", "-", name)
    return Path(f"{name}.{file_format}")


def descriptive_metadata(network: TrainedNetwork) -> dict[str, str]:
    """What another program must know to use a network, as JSON by key.

    ``class_names``, ``palette``, ``mean`` and ``std`` are lists; ``fcnlab`` is all that the checkpoint says.
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
    arrays = {name: parameter.asnumpy() for name, parameter in network.network.parameters_dict().items()}
    if file_format == "onnx":
        from fcnlab.inference.onnx_export import write_onnx

        write_onnx(path, arrays, network.metadata["arch"], metadata)
    elif file_format == "mindir":
        from fcnlab.inference.mindir_export import write_mindir

        write_mindir(path, network.network, metadata, network.channels)
    else:
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(path), metadata)


def _check(file_format: str, path: Path, network: TrainedNetwork) -> float:
    """The largest difference between the logits of the file and of the network.

    Raises:
        ExportError: If it is too large.
    """
    import mindspore as ms
    from mindspore import Tensor

    run = _runner(file_format, path)
    # One compilation for all sizes.
    network.network.set_inputs(Tensor(shape=[None, network.channels, None, None], dtype=ms.float32))
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
    if file_format == "onnx":
        from fcnlab.inference.onnx_export import onnx_runner

        return onnx_runner(path)
    if file_format == "mindir":
        from fcnlab.inference.mindir_export import mindir_runner

        return mindir_runner(path)
    import mindspore as ms
    from mindspore import Tensor

    from fcnlab.experiment.loading import read_network

    loaded = read_network(path, str(path))
    loaded.network.set_inputs(Tensor(shape=[None, loaded.channels, None, None], dtype=ms.float32))
    return lambda images: loaded(Tensor(images)).asnumpy()


@hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="export")
def _command(node: DictConfig) -> None:
    try:
        export(configuration.from_node(node))
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))


if __name__ == "__main__":
    command.run(_command, ExportConfig)
