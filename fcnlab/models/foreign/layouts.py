"""From the names and shapes in a file of weights to the names of an `FCN`, and to the images that they expect."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fcnlab.core.errors import CheckpointError
from fcnlab.models.foreign.input_convention import (
    FCN_CAFFE,
    FCN_MINDSPORE,
    TORCHVISION,
    VGG_CAFFE,
    InputConvention,
)
from fcnlab.models.foreign.weights_file import WeightsFile

TAKEN, RESHAPED, CONVERTED = "taken", "reshaped", "converted"

FIRST = "encoder.block1.conv1.weight"
"""The convolution that sees the images."""

VGG_DEPTHS = {8: (1, 1, 2, 2, 2), 10: (2, 2, 2, 2, 2), 13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}
"""The convolutions in each block of VGG-11, 13, 16 and 19, by their number."""

HEAD_LAYER = r"(score|upsample)(_pool[1-4])?\.(weight|bias)|scale_pool[1-4]"
"""A pattern of the parameters that no encoder has, whose names torchvision's layout takes from this package."""

RESNET_DEPTHS = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
}
"""The numbers in the names of ResNets, by whether their units have three convolutions, and the units of each stage."""

PARTS = {
    **{name: name for name in ("weight", "bias", "gamma", "beta", "moving_mean", "moving_variance")},
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
"""The parts of a layer under the names that PyTorch and MindSpore give them."""

NORM_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class Entry:
    """An array of the file on its way to a parameter.

    Attributes:
        array: The array, in the shape that this package uses.
        sources: The names in the file that it was made from.
        action: What happened to it: ``TAKEN``, ``RESHAPED`` or ``CONVERTED``.
    """

    array: np.ndarray
    sources: tuple[str, ...]
    action: str = TAKEN


@dataclass(frozen=True)
class Recognised:
    """What a file holds, in the names of this package.

    Attributes:
        layout: Whose names the file has, for people.
        entries: By the names of an `FCN`'s parameters. A layer may have parts that the network at hand has not: a bias
            beside a batch norm, or a batch norm, which is ``norm_of`` its convolution.
        convention: The images that the weights expect; None if it is not known.
        class_names: The classes of the score layers; empty if they are not known.
        encoder: The value of ``arch.encoder`` that the weights belong to; empty if it is not known.
    """

    layout: str
    entries: dict[str, Entry]
    convention: InputConvention | None = None
    class_names: Sequence[str] = ()
    encoder: str = ""


def norm_of(layer: str) -> str:
    """Return the name of the batch norm that follows a convolution."""
    block, _, name = layer.rpartition(".")
    return f"{block}.{name.replace('conv', 'norm')}" if name.startswith("conv") else f"{layer}.norm"


def recognise(file: WeightsFile, source: str, names: Collection[str] = ()) -> Recognised:
    """Find out whose layout a file has.

    Args:
        file: The file.
        source: How a message calls the file.
        names: The names of the network's parameters. A network that is no `FCN` starts from a file of its own names.

    Raises:
        CheckpointError: If no layout is known that has such names.
    """
    for layout in (lambda file: _own(file, names), *LAYOUTS):
        found = layout(file)
        if found is not None:
            return found
    first = ", ".join(ascii(name[:60]) for name in list(file.arrays)[:3])
    raise CheckpointError(
        f"{source}: is a {file.kind} file of {len(file.arrays)} arrays ({first}, ...) whose layout is not known; known "
        "are VGG of torchvision, Keras, Caffe and MindSpore, ResNet of torchvision, AlexNet of torchvision and Caffe, "
        "FCN of its authors, torchfcn, torchvision and MindSpore, and this package's own"
    )


def _own(file: WeightsFile, names: Collection[str]) -> Recognised | None:
    """Names of this package, or of the network of another package that is to be initialised."""
    if FIRST not in file.arrays and (FIRST in names or not any(name in file.arrays for name in names)):
        return None
    normalisation = file.metadata.get("normalisation")
    convention = None
    if isinstance(normalisation, dict):
        convention = _convention(normalisation.get("mean"), normalisation.get("std"))
    entries = {name: _taken(file, name) for name in file.arrays}
    return Recognised("this package", entries, convention, _class_names(file), _own_encoder(file.metadata.get("arch")))


def _class_names(file: WeightsFile) -> list[str]:
    """Return the classes that a file of this package names; none if it names none."""
    classes = file.metadata.get("class_names")
    return classes if isinstance(classes, list) and all(isinstance(name, str) for name in classes) else []


def _own_encoder(arch: object) -> str:
    """Return the encoder that a checkpoint of this package states; those before it was a key have VGG-16."""
    if not isinstance(arch, dict) or not re.fullmatch(r"fcn\d+s", str(arch.get("name"))):
        return ""
    return str(arch.get("encoder", "vgg16"))


def _convention(mean: object, std: object) -> InputConvention | None:
    """Return the images of a checkpoint of this package; None if what it says of them is no mean or no deviation."""
    for values in (mean, std):
        if not isinstance(values, list) or len(values) != 3 or not all(isinstance(value, float) for value in values):
            return None
    possible = all(0 <= value <= 1 for value in mean) and all(0 < value < math.inf for value in std)
    return InputConvention(tuple(mean), tuple(std)) if possible else None


def _torchvision(file: WeightsFile) -> Recognised | None:
    """``features.0.weight``, of torchvision and mindcv, or ``layers.0.weight``, of MindSpore's model zoo."""
    named = _below_prefix(file, r"(features|layers)\.0\.weight")
    numbered: dict[int, dict[str, str]] = {}
    for name, original in named.items():
        match = re.fullmatch(r"(?:features|layers)\.(\d{1,4})\.(\w+)", name)
        if match and match[2] in PARTS:
            numbered.setdefault(int(match[1]), {})[PARTS[match[2]]] = original
    convolutions = []
    for number, layer in sorted(numbered.items()):
        if "weight" in layer and file.arrays[layer["weight"]].ndim == 4:
            convolutions.append({**layer, **_norm_parts(numbered.get(number + 1, {}))})
    entries = _vgg(file, convolutions)
    if not entries:
        return None
    for layer, ours in {"classifier.0": "fc6", "classifier.3": "fc7", "pre_logits.fc1": "fc6",
                        "pre_logits.fc2": "fc7"}.items():  # fmt: skip
        weight, bias = named.get(f"{layer}.weight"), named.get(f"{layer}.bias")
        if weight is not None and bias is not None:
            entries |= _dense(file, ours, weight, bias, _channels(entries))
    heads = _own_heads(file, named)
    kind, depth = "FCN with VGG" if heads else "VGG", _depth(convolutions)
    layout = f"{kind}-{depth} of torchvision's names"
    return Recognised(layout, entries | heads, TORCHVISION, _class_names(file), _vgg_encoder(depth))


def _torchvision_alexnet(file: WeightsFile) -> Recognised | None:
    """``features.0.weight`` of 11 x 11 pixels: AlexNet in one tower, with its dense layers after dropout."""
    named = _below_prefix(file, r"features\.0\.weight")
    if not named or file.arrays[named["features.0.weight"]].shape[2:] != (11, 11):
        return None
    places = {0: "block1.conv1", 3: "block2.conv1", 6: "block3.conv1", 8: "block3.conv2", 10: "block3.conv3"}
    entries = {
        f"encoder.{ours}.{part}": _taken(file, named[f"features.{number}.{part}"])
        for number, ours in places.items()
        for part in ("weight", "bias")
        if f"features.{number}.{part}" in named
    }
    for layer, ours in {"classifier.1": "fc6", "classifier.4": "fc7"}.items():
        weight, bias = named.get(f"{layer}.weight"), named.get(f"{layer}.bias")
        if weight is not None and bias is not None:
            entries |= _dense(file, ours, weight, bias, _channels(entries), side=6)
    heads = _own_heads(file, named)
    layout = f"{'FCN with ' if heads else ''}AlexNet of torchvision's names"
    return Recognised(layout, entries | heads, TORCHVISION, _class_names(file), encoder="alexnet")


def _torchvision_resnet(file: WeightsFile) -> Recognised | None:
    """``conv1.weight`` and ``layer1.0.conv1.weight``, of torchvision and mindcv; below ``backbone.`` in an FCN."""
    prefix = _prefix(file, r"layer1\.0\.conv1\.weight")
    if prefix is None or f"{prefix}conv1.weight" not in file.arrays:
        return None
    norms = {"weight": "gamma", "bias": "beta"}
    entries: dict[str, Entry] = {}
    units: dict[int, int] = {}
    for original in file.arrays:
        name = original.removeprefix(prefix)
        match = re.fullmatch(r"(?:layer([1-4])\.(\d{1,3})\.)?(conv|bn|downsample|down_sample)\.?(\d)\.(\w+)", name)
        if not original.startswith(prefix) or match is None or match[5] not in PARTS:
            continue
        stage, unit, layer, number, part = match.groups()
        if stage is not None:
            units[int(stage)] = max(units.get(int(stage), 0), int(unit) + 1)
        is_norm = layer == "bn" or (layer.startswith("down") and number == "1")
        place = "block1" if stage is None else f"block{int(stage) + 1}.unit{int(unit) + 1}"
        ours = f"{'norm' if is_norm else 'conv'}{'_shortcut' if layer.startswith('down') else number}"
        part = norms.get(part, PARTS[part]) if is_norm else PARTS[part]
        entries[f"encoder.{place}.{ours}.{part}"] = _taken(file, original)
    deep = "encoder.block2.unit1.conv3.weight" in entries
    depth = RESNET_DEPTHS.get((deep, tuple(units.get(stage, 0) for stage in (1, 2, 3, 4))))
    name = "ResNet" if depth is None else f"ResNet-{depth}"
    encoder = "" if depth is None else f"resnet{depth}"
    head = _torchvision_head(file, prefix.removesuffix("backbone."))
    head |= _own_heads(file, {name.removeprefix(prefix): name for name in file.arrays if name.startswith(prefix)})
    layout = f"FCN of {name} of torchvision's names" if head else f"{name} of torchvision's names"
    return Recognised(layout, entries | head, TORCHVISION, _class_names(file), encoder=encoder)


def _torchvision_head(file: WeightsFile, prefix: str) -> dict[str, Entry]:
    """Return the head of torchvision's FCN; nothing where there is none."""
    places = {
        "classifier.0.weight": "head.conv1.weight",
        "classifier.1.weight": "head.norm1.gamma",
        "classifier.1.bias": "head.norm1.beta",
        "classifier.1.running_mean": "head.norm1.moving_mean",
        "classifier.1.running_var": "head.norm1.moving_variance",
        "classifier.4.weight": "score.weight",
        "classifier.4.bias": "score.bias",
    }
    return {ours: _taken(file, f"{prefix}{name}") for name, ours in places.items() if f"{prefix}{name}" in file.arrays}


def _own_heads(file: WeightsFile, named: Mapping[str, str]) -> dict[str, Entry]:
    """Return the layers that an export of this package adds to torchvision's, under its own names.

    Args:
        file: The file.
        named: The names in the file, by these without what wrappers put before them.
    """
    return {name: _taken(file, original) for name, original in named.items() if re.fullmatch(HEAD_LAYER, name)}


def _norm_parts(layer: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of a batch norm, where PyTorch says weight and bias for gamma and beta; nothing of others."""
    if "moving_mean" not in layer:
        return {}
    named = {"gamma": layer.get("weight"), "beta": layer.get("bias"), **layer}
    return {part: named[part] for part in NORM_PARTS if named.get(part) is not None}


def _keras(file: WeightsFile) -> Recognised | None:
    """``block1_conv1``, in HDF5 or in an ONNX file made of it, or ``layers/conv2d_12/vars/0`` of Keras 3."""
    layers: dict[tuple[int, int], dict[str, str]] = {}
    dense: dict[str, dict[str, str]] = {}
    for name, array in file.arrays.items():
        match = re.search(r"block([1-5])_conv([1-4])(?!\d)", name)
        is_added = array.ndim == 4 and array.shape == (1, array.size, 1, 1)  # to the result of a convolution in ONNX
        part = "bias" if is_added else {4: "weight", 2: "weight", 1: "bias"}.get(array.ndim)
        if match and part:
            layers.setdefault((int(match[1]), int(match[2])), {})[part] = name
        match = re.search(r"(?:^|[/_])fc([12])(?:[/_]|$)", name)
        if match and part:
            dense.setdefault(f"fc{int(match[1]) + 5}", {})[part] = name
    entry = _keras_part if file.kind == "Keras" else _part
    entries: dict[str, Entry] = {}
    for place, layer in sorted(layers.items()):
        if "weight" in layer:
            entries |= _convolution(file, place, layer, entry)
    depth = _depth(layers)
    if not entries and file.kind == "Keras":
        convolutions, dense = _keras_by_number(file)
        entries, depth = _vgg(file, convolutions, entry), _depth(convolutions)
    if not entries:
        return None
    for ours, layer in dense.items():
        if len(layer) == 2:
            entries |= _dense(file, ours, layer["weight"], layer["bias"], _channels(entries), channels_last=True)
    return Recognised(f"VGG-{depth} of Keras's names", entries, VGG_CAFFE, encoder=_vgg_encoder(depth))


def _keras_by_number(file: WeightsFile) -> tuple[list[dict[str, str]], dict[str, dict[str, str]]]:
    numbered: dict[str, dict[int, dict[str, str]]] = {"conv2d": {}, "dense": {}}
    for name in file.arrays:
        match = re.search(r"(?:^|/)(conv2d|dense)(?:_(\d{1,4}))?/vars/([01])$", name)
        if match:
            layer = numbered[match[1]].setdefault(int(match[2] or 0), {})
            layer["bias" if match[3] == "1" else "weight"] = name
    dense = {f"fc{number + 6}": layer for number, layer in numbered["dense"].items() if number < 2}
    return [layer for _, layer in sorted(numbered["conv2d"].items())], dense


def _caffe(file: WeightsFile) -> Recognised | None:
    """``conv1_1``, of Caffe's VGG and FCN and of torchfcn."""
    named = _below_prefix(file, r"conv1_1\.weight")
    if not named:
        return None
    layers: dict[str, dict[str, str]] = {}
    for name, original in named.items():
        layer, _, part = name.replace("-", "_").rpartition(".")
        match = re.fullmatch(r"conv([1-5])_([1-4])", layer)
        if part in ("weight", "bias"):
            layers.setdefault(f"encoder.block{match[1]}.conv{match[2]}" if match else layer, {})[part] = original
    entries = {}
    for layer, parts in layers.items():
        if layer.startswith("encoder."):
            entries |= {f"{layer}.{part}": _part(file, part, name) for part, name in parts.items()}
    for layer in ("fc6", "fc7"):
        if len(layers.get(layer, {})) == 2:
            entries |= _dense(file, layer, *(layers[layer][part] for part in ("weight", "bias")), _channels(entries))
    heads = _heads(file, layers)
    return Recognised(
        "FCN of its authors' names" if heads else "VGG of Caffe's names",
        entries | heads,
        FCN_CAFFE if heads else VGG_CAFFE,
    )


def _mindspore_fcn(file: WeightsFile) -> Recognised | None:
    """``conv1.0`` and ``conv6.1``, of MindSpore's FCN8s: batch norm also after fc6 and fc7."""
    named = _below_prefix(file, r"conv1\.0\.weight")
    if "conv1.1.gamma" not in named:
        return None
    entries, layers = {}, {}
    for name, original in named.items():
        match = re.fullmatch(r"conv([1-7])\.(\d)\.(\w+)", name)
        if match and match[3] in PARTS:
            block, index = int(match[1]), int(match[2])
            layer = f"fc{block}" if block > 5 else f"encoder.block{block}.conv{index // 3 + 1}"
            layer = layer if index % 3 == 0 else norm_of(layer)
            entries[f"{layer}.{PARTS[match[3]]}"] = _taken(file, original)
        layer, _, part = name.rpartition(".")
        if part in ("weight", "bias"):
            layers.setdefault(layer, {})[part] = original
    return Recognised("FCN8s of MindSpore's names", entries | _heads(file, layers), FCN_MINDSPORE)


def _heads(file: WeightsFile, layers: Mapping[str, Mapping[str, str]]) -> dict[str, Entry]:
    """Return the score and upsampling layers as FCN's authors name them.

    The net of 8s at once scales what it scores of pool3 and pool4 by layers of their own in Caffe. (In torchfcn the
    factors are in its code, and cannot be seen in its files.)
    """
    names = {
        **{"score_fr": "score", "score_pool4": "score_pool4", "score_pool3": "score_pool3"},
        **{"upscore2": "upsample_pool4", "upscore_pool4": "upsample_pool3"},
        **dict.fromkeys(("upscore", "upsample", "upscore16", "upscore8"), "upsample"),
    }
    entries = {}
    for layer, ours in names.items():
        for part, name in layers.get(layer, {}).items():
            entries[f"{ours}.{part}"] = _part(file, part, name)
    for pool in ("pool3", "pool4"):
        factor, score = layers.get(f"scale_{pool}", {}).get("weight"), entries.get(f"score_{pool}.weight")
        if factor is not None and score is not None and score.array.ndim == 4:
            factors, channels = file.arrays[factor], score.array.shape[1]
            if factors.size == 1:
                factors = np.full(channels, factors.item(), factors.dtype)
            entries[f"scale_{pool}"] = Entry(factors, (factor,))
    return entries


def _caffe_alexnet(file: WeightsFile) -> Recognised | None:
    """``conv1`` to ``conv5``, of Caffe's AlexNet and of the FCN that its authors made of it."""
    named = _below_prefix(file, r"conv1\.weight")
    if "conv5.weight" not in named:
        return None
    layers: dict[str, dict[str, str]] = {}
    for name, original in named.items():
        layer, _, part = name.replace("-", "_").rpartition(".")
        if part in ("weight", "bias"):
            layers.setdefault(layer, {})[part] = original
    entries = {}
    for number, ours in enumerate(("block1.conv1", "block2.conv1", "block3.conv1", "block3.conv2", "block3.conv3"), 1):
        for part, original in layers.get(f"conv{number}", {}).items():
            entries[f"encoder.{ours}.{part}"] = _part(file, part, original)
    for layer in ("fc6", "fc7"):
        if len(layers.get(layer, {})) == 2:
            parts = (layers[layer][part] for part in ("weight", "bias"))
            entries |= _dense(file, layer, *parts, _channels(entries), side=6)
    heads = _heads(file, layers)
    layout = "FCN-AlexNet of its authors' names" if heads else "AlexNet of Caffe's names"
    return Recognised(layout, entries | heads, FCN_CAFFE)


def _by_order(file: WeightsFile) -> Recognised | None:
    """The 3 x 3 convolutions of a graph in their order, whatever their names; what images they expect is not known."""
    convolutions = [layer for layer in file.convolutions if file.arrays[layer["weight"]].shape[2:] == (3, 3)]
    shapes = [file.arrays[layer["weight"]].shape for layer in convolutions]
    chained = all(after[1] == before[0] for before, after in pairwise(shapes))
    if len(convolutions) not in VGG_DEPTHS or not chained:
        return None
    depth = _depth(convolutions)
    layout = f"VGG-{depth} by the order of its convolutions"
    return Recognised(layout, _vgg(file, convolutions), encoder=_vgg_encoder(depth))


LAYOUTS: tuple[Callable[[WeightsFile], Recognised | None], ...] = (
    _torchvision_alexnet,
    _torchvision,
    _torchvision_resnet,
    _keras,
    _caffe,
    _caffe_alexnet,
    _mindspore_fcn,
    _by_order,
)
"""What recognises a layout, in the order in which they are asked. Another encoder's layout joins in here."""


def _below_prefix(file: WeightsFile, anchor: str) -> dict[str, str]:
    """Return the names below the prefix that wrappers put before them, such as ``module.``, each with its whole name.

    Args:
        file: The file.
        anchor: A pattern of a name that tells the prefix; nothing is returned where no name fits.
    """
    prefix = _prefix(file, anchor)
    if prefix is None:
        return {}
    return {name.removeprefix(prefix): name for name in file.arrays if name.startswith(prefix)}


def _prefix(file: WeightsFile, anchor: str) -> str | None:
    """Return what stands before a name that fits a pattern; None where no name fits."""
    prefixes = (match[1] for name in file.arrays if (match := re.fullmatch(rf"((?:.*\.)?){anchor}", name)))
    return min(prefixes, key=len, default=None)


def _taken(file: WeightsFile, name: str) -> Entry:
    return Entry(file.arrays[name], (name,))


def _part(file: WeightsFile, part: str, name: str) -> Entry:
    """Return a part of a layer; a bias, which has four dimensions in Caffe until 2014 and in sums of ONNX, has one."""
    array = file.arrays[name]
    return Entry(array.ravel(), (name,), RESHAPED) if part == "bias" and array.ndim > 1 else _taken(file, name)


def _keras_part(file: WeightsFile, part: str, name: str) -> Entry:
    """Return a part of a layer of Keras, whose kernels are height x width x I x O."""
    array = file.arrays[name]
    return Entry(array.transpose(3, 2, 0, 1), (name,), RESHAPED) if array.ndim == 4 else _part(file, part, name)


def _vgg(
    file: WeightsFile,
    convolutions: Sequence[Mapping[str, str]],
    entry: Callable[[WeightsFile, str, str], Entry] = _part,
) -> dict[str, Entry]:
    """Name the convolutions of a VGG, which come in their order; nothing if no VGG has as many."""
    depths = VGG_DEPTHS.get(len(convolutions), ())
    places = [(block, index) for block, depth in enumerate(depths, 1) for index in range(1, depth + 1)]
    entries = {}
    for place, layer in zip(places, convolutions, strict=False):
        entries |= _convolution(file, place, layer, entry)
    return entries


def _convolution(
    file: WeightsFile, place: tuple[int, int], layer: Mapping[str, str], entry: Callable[[WeightsFile, str, str], Entry]
) -> dict[str, Entry]:
    """Name the parts of a convolution, which is at a block and a place in it, and of the batch norm after it."""
    name = "encoder.block{}.conv{}".format(*place)
    return {
        f"{norm_of(name) if part in NORM_PARTS else name}.{part}": entry(file, part, original)
        for part, original in layer.items()
    }


def _depth(convolutions: Collection[object]) -> int:
    """Return the number in the name of a VGG, which counts three dense layers, too."""
    return len(convolutions) + 3


def _vgg_encoder(depth: int) -> str:
    """Return the encoder of a VGG's depth; empty for a file that lacks some of its convolutions."""
    return f"vgg{depth}" if depth - 3 in VGG_DEPTHS else ""


def _channels(entries: Mapping[str, Entry]) -> int:
    """Return the channels of the last convolution; 0 if there is none."""
    weights = [entry.array for name, entry in entries.items() if name.startswith("encoder.") and entry.array.ndim == 4]
    return weights[-1].shape[0] if weights else 0


def _dense(
    file: WeightsFile, layer: str, weight: str, bias: str, channels: int, channels_last: bool = False, side: int = 7
) -> dict[str, Entry]:
    """Return a dense layer as the convolution that computes the same; nothing if it is of another size.

    Args:
        file: The file.
        layer: ``fc6`` or ``fc7``.
        weight: The name of its matrix, outputs x inputs, or of a convolution's kernel.
        bias: The name of its bias.
        channels: Of the features that fc6 sees.
        channels_last: Whether the matrix is inputs x outputs, and fc6's inputs are in the order height, width, channel.
        side: The side of what fc6 sees: 7 cells for VGG, 6 for AlexNet.
    """
    array, outputs = file.arrays[weight], file.arrays[bias].size
    side = side if layer == "fc6" else 1
    inputs = channels * side * side if layer == "fc6" else array.size // max(outputs, 1)
    if outputs == 0 or array.size != outputs * inputs or inputs == 0:
        return {}
    if channels_last:
        kernel = array.reshape(side, side, inputs // side**2, outputs).transpose(3, 2, 0, 1)
    else:
        kernel = array.reshape(outputs, inputs // side**2, side, side)
    vector = file.arrays[bias].reshape(outputs)
    return {
        f"{layer}.weight": Entry(kernel, (weight,), TAKEN if kernel.shape == array.shape else RESHAPED),
        f"{layer}.bias": Entry(vector, (bias,), TAKEN if file.arrays[bias].ndim == 1 else RESHAPED),
    }
