"""From the names of an `FCN` to those that PyTorch's packages give its layers: what `layouts` does, the other way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fcnlab.core.errors import ExportError
from fcnlab.models.dilated import DilatedFCN
from fcnlab.models.fcn import FCN
from fcnlab.models.foreign.input_convention import FCN_CAFFE, TORCHVISION, InputConvention
from fcnlab.models.foreign.layouts import FIRST, HEAD_LAYER, NORM_PARTS, VGG_DEPTHS, norm_of

CONVENTIONS = {"torchvision": TORCHVISION, "torchfcn": FCN_CAFFE}
"""The images that the networks of each package take, by the value of the key ``layout``."""

_NORM = dict(zip(NORM_PARTS, ("weight", "bias", "running_mean", "running_var"), strict=True))
"""PyTorch's names of the parts of a batch norm."""

_TORCHFCN_SCALES = {"scale_pool4": np.float32(0.01), "scale_pool3": np.float32(0.0001)}
"""The factors that stand in the code of torchfcn's FCN8sAtOnce."""


_RESIDUAL = "encoder.block2.unit1.conv1.weight"
"""A parameter that only residual networks have."""

_FIRST_BIAS, _FIRST_NORM = FIRST.replace("weight", "bias"), norm_of(FIRST.removesuffix(".weight"))


class Renamed(NamedTuple):
    """A network under the names of another package.

    Attributes:
        arrays: The arrays by those names: float32, and int64 for the batches that PyTorch's batch norms count.
        convention: The images that they expect.
    """

    arrays: dict[str, np.ndarray]
    convention: InputConvention


def rename(network: FCN | DilatedFCN, layout: str, mean: Sequence[float], std: Sequence[float]) -> Renamed:
    """Return a network's arrays under the names of another package, for the images of that package.

    Args:
        network: The network.
        layout: ``"torchvision"`` or ``"torchfcn"``.
        mean: The mean of red, green and blue, from 0 to 1, with which the network's images are normalised.
        std: Their standard deviation.

    Raises:
        ExportError: If that package has no such network.
    """
    arrays = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    _refuse_other_layers(arrays, layout)
    if layout == "torchfcn":
        layers = _torchfcn_layers(network, arrays)
        for scale in [name for name in arrays if name in _TORCHFCN_SCALES]:
            ratio = arrays.pop(scale) / _TORCHFCN_SCALES[scale]
            arrays[f"{scale.replace('scale', 'score')}.weight"] *= ratio[:, None, None]
    else:
        layers = _torchvision_layers(arrays)
        for layer in {"fc6", "fc7"} & {*layers}:  # which are dense there
            arrays[f"{layer}.weight"] = arrays[f"{layer}.weight"].reshape(len(arrays[f"{layer}.bias"]), -1)
    has_biases = _RESIDUAL not in arrays  # torchvision's VGG has them before a batch norm, too
    convention = CONVENTIONS[layout]
    arrays[FIRST], grows = convention.convert_back(arrays[FIRST], mean, std)
    if has_biases:
        arrays[_FIRST_BIAS] = arrays.get(_FIRST_BIAS, 0) + grows
    else:
        arrays[f"{_FIRST_NORM}.moving_mean"] = arrays[f"{_FIRST_NORM}.moving_mean"] - grows

    renamed: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        layer, _, part = name.rpartition(".")
        if layer in layers:
            renamed[f"{layers[layer]}.{_NORM.get(part, part)}"] = array
            if part == "moving_mean":
                renamed[f"{layers[layer]}.num_batches_tracked"] = np.zeros((), np.int64)
            elif has_biases and part == "weight" and layer.startswith("encoder.") and f"{layer}.bias" not in arrays:
                renamed[f"{layers[layer]}.bias"] = np.zeros(len(array), np.float32)
        elif layout == "torchvision" and re.fullmatch(HEAD_LAYER, name):
            renamed[name] = array
        else:
            raise ExportError(f"layout={layout}: has no name for {name}; use layout=fcnlab")
    return Renamed(renamed, convention)


def _torchvision_layers(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return torchvision's names of the layers of a network by ours; it has none for score and upsampling layers.

    Raises:
        ExportError: If it has no such encoder.
    """
    if _RESIDUAL in arrays:
        return _torchvision_resnet_layers(arrays)
    if arrays[FIRST].shape[2:] == (11, 11):
        return _torchvision_alexnet_layers(arrays)
    depths = _vgg_depths(arrays)
    if depths is None:
        raise ExportError("layout=torchvision: has no such encoder; use layout=fcnlab")
    layers, position = {"fc6": "classifier.0", "fc7": "classifier.3"}, 0
    for block, depth in enumerate(depths, 1):
        for index in range(1, depth + 1):
            layer = f"encoder.block{block}.conv{index}"
            layers |= {layer: f"features.{position}", norm_of(layer): f"features.{position + 1}"}
            position += 3 if f"{_FIRST_NORM}.gamma" in arrays else 2
        position += 1  # the pooling
    return layers


def _torchvision_resnet_layers(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return torchvision's names of a residual network, or of its FCN, whose encoder is below ``backbone.``."""
    is_fcn = "head.conv1.weight" in arrays
    prefix = "backbone." if is_fcn else ""
    layers = {"head.conv1": "classifier.0", "head.norm1": "classifier.1", "score": "classifier.4"} if is_fcn else {}
    kinds = {"conv": "conv", "norm": "bn"}
    for layer in {name.rpartition(".")[0] for name in arrays}:
        match = re.fullmatch(r"encoder\.block(\d)\.(?:unit(\d+)\.)?(conv|norm)(\d|_shortcut)", layer)
        if match:
            block, unit, kind, number = match.groups()
            place = "" if unit is None else f"layer{int(block) - 1}.{int(unit) - 1}."
            named = f"downsample.{int(kind == 'norm')}" if number == "_shortcut" else f"{kinds[kind]}{number}"
            layers[layer] = f"{prefix}{place}{named}"
    return layers


def _torchvision_alexnet_layers(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return torchvision's names of an AlexNet in one tower.

    Raises:
        ExportError: If it has batch norm, or two towers.
    """
    if f"{_FIRST_NORM}.gamma" in arrays or arrays["encoder.block2.conv1.weight"].shape[1] != len(arrays[FIRST]):
        raise ExportError(
            "layout=torchvision: has AlexNet in one tower and without batch norm, as arch.encoder=alexnet is with "
            "arch.norm=none; use layout=fcnlab"
        )
    places = {"block1.conv1": 0, "block2.conv1": 3, "block3.conv1": 6, "block3.conv2": 8, "block3.conv3": 10}
    layers = {f"encoder.{ours}": f"features.{number}" for ours, number in places.items()}
    return layers | {"fc6": "classifier.1", "fc7": "classifier.4"}


def _torchfcn_layers(network: FCN | DilatedFCN, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return torchfcn's names of the layers of a published FCN by ours.

    Raises:
        ExportError: If the network is not as its authors published it.
    """
    depths = _vgg_depths(arrays)
    if not network.published or depths != VGG_DEPTHS[13]:
        raise ExportError(
            "layout=torchfcn: has FCN-32s, 16s and 8s as they were published, which arch=paper/... trains; use "
            "layout=torchvision"
        )
    layers = {
        f"encoder.block{block}.conv{index}": f"conv{block}_{index}"
        for block, depth in enumerate(depths, 1)
        for index in range(1, depth + 1)
    }
    upsample = "upscore" if network.stride == 32 else f"upscore{network.stride}"
    return {
        **layers,
        **{layer: layer for layer in ("fc6", "fc7", "score_pool4", "score_pool3")},
        **{"score": "score_fr", "upsample_pool4": "upscore2", "upsample_pool3": "upscore_pool4", "upsample": upsample},
    }


def _vgg_depths(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...] | None:
    """Return the number of convolutions in each block of a VGG; None if the encoder is none."""
    layers = [re.fullmatch(r"encoder\.block(\d)\.conv\d\.weight", name) for name in arrays]
    blocks = [int(match[1]) for match in layers if match and arrays[match[0]].shape[2:] == (3, 3)]
    depths = tuple(blocks.count(block) for block in range(1, 6))
    return depths if depths in VGG_DEPTHS.values() else None


def _refuse_other_layers(arrays: Mapping[str, np.ndarray], layout: str) -> None:
    """Refuse a normalisation and images that no layout knows.

    Raises:
        ExportError: It names the key.
    """
    if f"{_FIRST_NORM}.gamma" in arrays and f"{_FIRST_NORM}.moving_mean" not in arrays:
        raise ExportError(f"layout={layout}: is for arch.norm=batch and arch.norm=none; use layout=fcnlab")
    channels = arrays[FIRST].shape[1]
    if channels != 3:
        raise ExportError(
            f"layout={layout}: is for RGB images, and this network's have dataset.channels={channels}; "
            "use layout=fcnlab"
        )
