"""The export of an FCN as an ONNX graph of standard operators, for images of any size.

The graph is written from the parameters by their names, since MindSpore's own exporter takes a single fixed size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from mindspore import nn

from fcnlab.core.errors import ExportError
from fcnlab.models.alexnet import AlexNetEncoder
from fcnlab.models.dilated import DilatedFCN
from fcnlab.models.fcn import FCN
from fcnlab.models.layers import group_count
from fcnlab.models.one_tower_alexnet import OneTowerAlexNetEncoder
from fcnlab.models.resnet import ResNetEncoder, Unit
from fcnlab.models.vgg import VGGEncoder

OPSET = 17
IR_VERSION = 8  # of ONNX 1.12, so that older runtimes take it

INPUT, OUTPUT = "images", "logits"
"""The names of the graph's input, N x channels x H x W, and output, N x C x H x W; both float32."""

_LARGEST = 2**31 - 2**20
"""The most bytes of weights that protobuf takes, with room for the graph."""


def write_onnx(path: Path, network: nn.Cell, arch: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write an `FCN` or a `DilatedFCN` as ONNX.

    Args:
        path: The file.
        network: The network.
        arch: The checkpoint's ``arch``, of which ``name``, ``num_classes`` and ``in_channels`` are used.
        metadata: The entries of the model's metadata.

    Raises:
        ExportError: If the package ``onnx`` is missing, the network or its encoder is from another package, or it is
            too large for one ONNX file.
    """
    onnx = _required("onnx")
    if not isinstance(network, FCN | DilatedFCN):
        raise ExportError(f"format=onnx: knows the networks of this package, not {arch['name']}; use format=mindir")
    if type(network.encoder).__module__.partition(".")[0] != "fcnlab":
        raise ExportError(
            f"format=onnx: knows the encoders of this package, not {arch.get('encoder')}; use format=mindir"
        )
    arrays = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST:
        raise ExportError(
            f"format=onnx: the weights take {size / 2**30:.1f} GiB, and a file holds 2 at most; use format=safetensors"
        )
    graph = _GraphBuilder(arrays)
    if isinstance(network, FCN):
        graph.write_fcn(network)
    else:
        graph.write_dilated_fcn(network)
    value_info = onnx.helper.make_tensor_value_info
    shapes = {
        INPUT: ("batch", arch.get("in_channels", 3), "height", "width"),
        OUTPUT: ("batch", arch["num_classes"], "height", "width"),
    }
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            arch["name"],
            [value_info(INPUT, onnx.TensorProto.FLOAT, shapes[INPUT])],
            [value_info(OUTPUT, onnx.TensorProto.FLOAT, shapes[OUTPUT])],
            graph.initializers,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fcnlab",
    )
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


class _GraphBuilder:
    """Collects the nodes of a graph; each method adds one and returns the name of its output."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._known: set[str] = set()

    def write_fcn(self, network: FCN) -> None:
        """Write `fcnlab.models.FCN`, layer by layer."""
        encoder, crop = network.encoder, network.encoder.crop if network.published else 0
        spatial = self.spatial(INPUT)
        if network.published:
            features = self.padded(INPUT, encoder.padding)
        else:
            # Images are padded to a multiple of 32, to the right and bottom. Mod takes the sign of the divisor.
            beyond = self.node("Mod", [self.node("Neg", [spatial]), self.constant("grid", [32])])
            pads = self.node("Concat", [self.constant("no_pads", [0] * 6), beyond], axis=0)
            features = self.node("Pad", [INPUT, pads])
        pools = self.pools(features, encoder)
        features = pools[-1]
        if network.dense:
            kernel_size = network.head_kernel
            before = 0 if network.published else (kernel_size - 1) // 2
            after = 0 if network.published else kernel_size // 2
            features = self.node("Relu", [self.convolution(features, "fc6", before, after)])
            features = self.node("Relu", [self.convolution(features, "fc7")])
        score = self.convolution(features, "score")
        if network.published:
            score = self.padded(score, 1)
        for pool in (4, 3, 2, 1):
            if 2**pool >= network.stride:
                score, skip = self.upsampling(score, f"upsample_pool{pool}"), pools[pool - 6]
                if network.published:
                    skip = self.part(skip, 2 ** (6 - pool), self.spatial(score))
                if pool in network.scaled:
                    skip = self.node("Mul", [skip, self.parameter(f"scale_pool{pool}", (1, -1, 1, 1))])
                score = self.node("Add", [score, self.convolution(skip, f"score_pool{pool}")])
        self.part(self.upsampling(score, "upsample"), crop, spatial, output=OUTPUT)

    def write_dilated_fcn(self, network: DilatedFCN) -> None:
        """Write `fcnlab.models.DilatedFCN`, layer by layer."""
        features = self.convolution(self.pools(INPUT, network.encoder)[-1], "head.conv1", padding=1)
        score = self.convolution(self.node("Relu", [self.normalised(features, "head.norm1")]), "score")
        of_score = self.slice(self.node("Shape", [score]), [0], [2], [0])
        sizes = self.node("Concat", [of_score, self.spatial(INPUT)], axis=0)
        mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        self.node("Resize", [score, "", "", sizes], output=OUTPUT, **mode)

    def pools(self, features: str, encoder: nn.Cell) -> list[str]:
        """Write an encoder of this package, and return its maps, finest first."""
        writers = {
            VGGEncoder: self.vgg,
            AlexNetEncoder: self.alexnet,
            OneTowerAlexNetEncoder: self.one_tower_alexnet,
            ResNetEncoder: self.resnet,
        }
        return next(write for kind, write in writers.items() if isinstance(encoder, kind))(features, encoder)

    def vgg(self, features: str, encoder: VGGEncoder) -> list[str]:
        """Write a `VGGEncoder`."""
        pools = []
        for block, convolutions in enumerate(encoder.depths, start=1):
            for index in range(1, convolutions + 1):
                features = self.layer(features, f"encoder.block{block}", index, padding=1)
            features = self.node("MaxPool", [features], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
            pools.append(features)
        return pools

    def resnet(self, features: str, encoder: ResNetEncoder) -> list[str]:
        """Write a `ResNetEncoder`."""
        pools = [self.layer(features, "encoder.block1", 1, padding=3, strides=[2, 2])]
        features = self.node("MaxPool", [pools[0]], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        for block in (2, 3, 4, 5):
            units = [cell for cell in getattr(encoder, f"block{block}") if isinstance(cell, Unit)]
            for index, unit in enumerate(units, start=1):
                features = self.unit(features, f"encoder.block{block}.unit{index}", unit)
            pools.append(features)
        return pools

    def unit(self, features: str, prefix: str, unit: Unit) -> str:
        """Write a unit of a `ResNetEncoder`."""
        changed, last = features, 3 if unit.bottleneck else 2
        for index in range(1, last + 1):
            cell = getattr(unit, f"conv{index}")
            changed = self.convolution(changed, f"{prefix}.conv{index}", **_geometry(cell))
            changed = self.normalised(changed, f"{prefix}.norm{index}")
            if index < last:
                changed = self.node("Relu", [changed])
        if unit.projected:
            features = self.convolution(features, f"{prefix}.conv_shortcut", **_geometry(unit.conv_shortcut))
            features = self.normalised(features, f"{prefix}.norm_shortcut")
        return self.node("Relu", [self.node("Add", [changed, features])])

    def one_tower_alexnet(self, features: str, encoder: OneTowerAlexNetEncoder) -> list[str]:
        """Write a `OneTowerAlexNetEncoder`."""
        pads = self.constant("pads_before", [0, 0, 31, 31, 0, 0, 0, 0])
        first = self.layer(self.node("Pad", [features, pads]), "encoder.block1", 1, padding=2, strides=[4, 4])
        pool1 = self.overlapping_pool(first, ceil_mode=0)
        pool2 = self.overlapping_pool(self.layer(pool1, "encoder.block2", 1, padding=2), ceil_mode=0)
        features = pool2
        for index in (1, 2, 3):
            features = self.layer(features, "encoder.block3", index, padding=1)
        cropped = [self.slice(values, [first] * 2, [2**31] * 2, [2, 3])
                   for values, first in ((first, 7), (pool1, 3), (pool2, 1))]  # fmt: skip
        return [*cropped, self.overlapping_pool(features, ceil_mode=0)]

    def layer(self, features: str, block: str, index: int, padding: int, **attributes: Any) -> str:
        """Write a convolution, the normalisation after it, if there is one, and a ReLU."""
        features = self.convolution(features, f"{block}.conv{index}", padding, **attributes)
        if f"{block}.norm{index}.gamma" in self._arrays:
            features = self.normalised(features, f"{block}.norm{index}")
        return self.node("Relu", [features])

    def alexnet(self, features: str, encoder: AlexNetEncoder) -> list[str]:
        """Write an `AlexNetEncoder`."""
        pools = []
        for block, how in enumerate(({"strides": [4, 4]}, {"group": 2}), start=1):
            padding = 0 if block == 1 else 2
            features = self.node("Relu", [self.convolution(features, f"encoder.block{block}.conv1", padding, **how)])
            features = self.overlapping_pool(features)
            features = self.node("LRN", [features], size=5, alpha=1e-4, beta=0.75, bias=1.0)
            pools.append(features)
        for index, group in enumerate((1, 2, 2), start=1):
            features = self.node("Relu", [self.convolution(features, f"encoder.block3.conv{index}", 1, group=group)])
        return [*pools, self.overlapping_pool(features)]

    def overlapping_pool(self, features: str, ceil_mode: int = 1) -> str:
        sizes = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": ceil_mode}
        return self.node("MaxPool", [features], **sizes)

    def spatial(self, values: str) -> str:
        """Return the height and the width of an array of four dimensions."""
        return self.slice(self.node("Shape", [values]), [2], [4], [0])

    def padded(self, values: str, padding: int) -> str:
        """Return an array with zeros on each of the four sides."""
        return self.node("Pad", [values, self.constant(f"pads{padding}", [0, 0, padding, padding] * 2)])

    def part(self, values: str, first: int, size: str, output: str | None = None) -> str:
        """Return as many rows and columns as ``size`` says, from ``first`` on."""
        starts, axes = self.constant(f"starts{first}", [first, first]), self.constant("axes", [2, 3])
        return self.node("Slice", [values, starts, self.node("Add", [starts, size]), axes], output=output)

    def convolution(
        self, features: str, layer: str, padding: int = 0, after: int | None = None, **attributes: Any
    ) -> str:
        """Write a convolution that is padded alike on all sides, or by ``after`` below and on the right."""
        names = [f"{layer}.weight", *([f"{layer}.bias"] if f"{layer}.bias" in self._arrays else [])]
        pads = [padding] * 2 + [padding if after is None else after] * 2
        return self.node("Conv", [features, *map(self.parameter, names)], pads=pads, **attributes)

    def normalised(self, features: str, layer: str) -> str:
        """Write batch or group normalisation, whichever has the parameters of that name."""
        if f"{layer}.moving_mean" not in self._arrays:
            return self.group_normalisation(features, layer)
        names = [f"{layer}.{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        return self.node("BatchNormalization", [features, *map(self.parameter, names)], epsilon=1e-5)

    def group_normalisation(self, features: str, layer: str) -> str:
        """Write a group normalisation as the instance normalisation of its groups: opset 17 has no operator for it."""
        groups = group_count(len(self._arrays[f"{layer}.gamma"]))
        shape = self.constant(f"groups{groups}", [0, groups, -1])
        factors = [
            self.initializer(f"{name}{groups}", np.full(groups, value, np.float32))
            for name, value in (("ones", 1), ("zeros", 0))
        ]
        grouped = self.node("Reshape", [features, shape])
        normal = self.node("InstanceNormalization", [grouped, *factors], epsilon=1e-5)
        normal = self.node("Reshape", [normal, self.node("Shape", [features])])
        gamma, beta = (self.parameter(f"{layer}.{name}", (1, -1, 1, 1)) for name in ("gamma", "beta"))
        return self.node("Add", [self.node("Mul", [normal, gamma]), beta])

    def upsampling(self, features: str, layer: str) -> str:
        weight = f"{layer}.weight"
        kernel_size = self._arrays[weight].shape[2]
        stride = (kernel_size + 1) // 2
        sizes = {"kernel_shape": [kernel_size] * 2, "strides": [stride] * 2, "pads": [stride // 2] * 4}
        return self.node("ConvTranspose", [features, self.parameter(weight)], **sizes)

    def slice(self, values: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        name = f"slice{len(self.nodes)}"
        parts = {"starts": starts, "ends": ends, "axes": axes}
        return self.node("Slice", [values, *(self.constant(f"{name}_{key}", part) for key, part in parts.items())])

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def parameter(self, name: str, shape: Sequence[int] | None = None) -> str:
        if name not in self._arrays:
            raise ExportError(f"format=onnx: the checkpoint has no {name}; it belongs to another network")
        array = self._arrays[name].astype(np.float32, copy=False)
        return self.initializer(name, array if shape is None else array.reshape(shape))

    def constant(self, name: str, values: Sequence[int]) -> str:
        return self.initializer(name, np.array(values, np.int64))

    def initializer(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        if name not in self._known:
            self._known.add(name)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _geometry(cell: nn.Conv2d) -> dict[str, Any]:
    """Return the padding, strides and dilations of a convolution, which are the same along both axes."""
    padding, strides, dilations = cell.padding, cell.stride, cell.dilation
    padding = padding[0] if isinstance(padding, tuple) else padding
    return {"padding": padding, "strides": [strides[0]] * 2, "dilations": [dilations[0]] * 2}


def onnx_runner(path: Path) -> Any:
    """Return a function from images to logits that onnxruntime runs; both are N x ... float32 arrays.

    Raises:
        ExportError: If the package ``onnxruntime`` is missing.
    """
    session = _required("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def _required(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ExportError(
            "format=onnx: needs the packages of the extra `export`: pip install 'fcnlab[export]'"
        ) from error
