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
from fcnlab.models import FCN, build_model
from fcnlab.models.dilated import DilatedFCN
from fcnlab.models.foreign import initialise
from fcnlab.models.foreign.input_convention import InputConvention
from fcnlab.models.foreign.renaming import CONVENTIONS, rename

log = logging.getLogger(__name__)

SIZES = ((64, 64), (97, 130), (160, 224))
"""The heights and widths of the images that an export is checked with."""

TOLERANCE = 1e-4
"""The largest difference between two logits; beyond a logit of 10, a hundred-thousandth of the largest logit."""


OWN_LAYOUT = "fcnlab"
"""The value of ``layout`` for the names and the images of this package."""

SUFFIXES = {"torch": (".pth", ".pt")}
"""The endings of the files of a format, the first by default; those of other formats are called like the format."""

BORDER = 1e-3
"""The difference of two means, on a scale of 0 to 1, below which an image's border is the same to the 8 bits of it."""


def export_network(network: TrainedNetwork, path: Path, file_format: str, layout: str = OWN_LAYOUT) -> None:
    """Write a network to a file, unless the file computes other logits than the network.

    Args:
        network: The network, made with MindSpore's own operators.
        path: The file, which appears whole or not at all; an older one stays if this fails.
        file_format: ``"mindir"``, ``"onnx"``, ``"safetensors"`` or ``"torch"``.
        layout: Whose names the weights get, and whose images they take: ``"fcnlab"`` or, for safetensors and torch,
            ``"torchvision"`` or ``"torchfcn"``.

    Raises:
        ExportError: If the file cannot be written, its logits differ, or the layout has no such network.
    """
    endings = _endings(file_format)
    if path.suffix not in endings:
        raise ExportError(f"output={path}: must end in {' or '.join(endings)}, since format={file_format}")
    check_layout(file_format, layout)
    try:
        with replacing(path) as temporary:
            written = temporary.with_suffix(path.suffix)  # MindSpore adds and expects its own suffix
            try:
                if layout == OWN_LAYOUT:
                    _write(file_format, written, network)
                else:
                    convention = _write_renamed(file_format, written, network, layout)
                difference = _check(file_format if layout == OWN_LAYOUT else layout, written, network)
                written.chmod(0o644)  # MindSpore and safetensors make files that only their owner may read
                written.replace(temporary)
            finally:
                written.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{path}: cannot write ({error.strerror or error}); choose another output=<file>") from error
    sizes = ", ".join(f"{height} x {width}" for height, width in SIZES)
    log.info("%s: logits differ from the network's by at most %.1e on images of %s", path, difference, sizes)
    if layout != OWN_LAYOUT:
        _explain_border(path, network, layout, convention)


def check_layout(file_format: str, layout: str) -> None:
    """Refuse a layout that a format does not go with.

    Raises:
        ExportError: It names both keys, and those that go together.
    """
    if file_format == "torch" and layout == OWN_LAYOUT:
        raise ExportError("format=torch: set layout=torchvision, or layout=torchfcn for arch=paper/..., too")
    if file_format not in ("torch", "safetensors") and layout != OWN_LAYOUT:
        raise ExportError(f"layout={layout}: goes with format=torch and format=safetensors, not format={file_format}")


def default_path(checkpoint: str, file_format: str) -> Path:
    """Return the file that an export goes to by default: in the working directory, named after the checkpoint."""
    name = re.sub(r"^(runs|models):/", "", checkpoint)
    name = Path(checkpoint).stem if name == checkpoint else re.sub(r"[^\w\-]+", "-", name)
    return Path(f"{name}{_endings(file_format)[0]}")


def _endings(file_format: str) -> tuple[str, ...]:
    return SUFFIXES.get(file_format, (f".{file_format}",))


def descriptive_metadata(network: TrainedNetwork) -> dict[str, str]:
    """Return what another program must know to use a network, as JSON by key.

    ``class_names``, ``palette``, ``mean``, ``std`` and any ``value_range`` are lists; ``fcnlab`` is the checkpoint's
    whole description.
    """
    values: dict[str, Any] = {
        "class_names": network.class_names,
        "palette": network.palette.tolist(),
        **network.normalisation,
        "input": f"N x {network.channels} x H x W float32{' RGB' if network.channels == 3 else ''}, "
        f"(pixel / {65535 if network.bits == 16 else 255} - mean) / std, any H and W from 32 up",
        "output": "N x C x H x W float32 logits",
        **({"value_range": network.value_range} if network.value_range else {}),
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


def _write_renamed(file_format: str, path: Path, network: TrainedNetwork, layout: str) -> InputConvention:
    """Write the weights under the names of another package, and return the images that they expect then.

    Raises:
        ExportError: If that package has no such network.
    """
    if not isinstance(network.network, FCN | DilatedFCN):
        raise ExportError(f"layout={layout}: is for this package's networks, not {network.metadata['arch']['name']}")
    arrays, convention = rename(network.network, layout, **network.normalisation)
    pixel = f"{convention.scale:g} * pixel / {65535 if network.bits == 16 else 255}"
    metadata = descriptive_metadata(network) | {
        "mean": json.dumps(convention.mean),
        "std": json.dumps(convention.std),
        "input": f"N x 3 x H x W float32 {convention.order}, ({pixel} - mean) / std, any H and W from 32 up",
        "fcnlab": json.dumps({"class_names": network.class_names, "layout": layout}, ensure_ascii=False),
    }
    if file_format == "torch":
        from fcnlab.inference.torch_export import write_torch

        write_torch(path, arrays, metadata)
    else:
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(path), metadata)
    return convention


def _explain_border(path: Path, network: TrainedNetwork, layout: str, convention: InputConvention) -> None:
    """Say where the file's network computes something else: its padding has the colour of another mean."""
    mean = network.normalisation["mean"]
    if np.abs(np.subtract(convention.exact_mean, mean)).max() < BORDER:
        log.info("%s: takes the images of %s, at their border, too", path, layout)
    else:
        log.info(
            "%s: takes the images of %s and computes the same of them, but near their border, where the network was "
            "trained with a padding of the colour %s and pads with %s there",
            *(path, layout, mean, convention.exact_mean),
        )


def _check(file_format: str, path: Path, network: TrainedNetwork) -> float:
    """Return the largest difference between the logits of the file and of the network.

    Raises:
        ExportError: If it is too large.
    """
    run = _runner(file_format, path, network)
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


def _runner(file_format: str, path: Path, network: TrainedNetwork) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images to logits that runs the file.

    Args:
        file_format: The format, or the layout of a file with the names of another package, which is read as a training
            reads it that starts from it.
        path: The file.
        network: The network that was written.
    """
    if file_format == "onnx":
        from fcnlab.inference.onnx_export import onnx_runner

        return onnx_runner(path)
    if file_format == "mindir":
        from fcnlab.inference.mindir_export import mindir_runner

        return mindir_runner(path)
    if file_format in CONVENTIONS:
        loaded = TrainedNetwork(build_model(**network.metadata["arch"]), network.metadata, str(path))
        initialise(loaded.network, path, str(path), **network.normalisation)
    else:
        loaded = read_network(path, str(path))
    _accept_any_size(loaded)
    return lambda images: loaded(Tensor(images)).asnumpy()


def _accept_any_size(network: TrainedNetwork) -> None:
    """Let one compilation of the network serve all sizes."""
    network.network.set_inputs(Tensor(shape=[None, network.channels, None, None], dtype=ms.float32))
