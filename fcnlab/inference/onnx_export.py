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
from fcnlab.models.fcn import FCN
from fcnlab.models.vgg import BLOCKS, VGG16Encoder

OPSET = 17
IR_VERSION = 8  # of ONNX 1.12, so that older runtimes take it

INPUT, OUTPUT = "images", "logits"
"""The names of the graph's input, N x channels x H x W, and output, N x C x H x W; both float32."""

_LARGEST = 2**31 - 2**20
"""The most bytes of weights that protobuf takes, with room for the graph."""


def write_onnx(path: Path, network: nn.Cell, arch: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write an `FCN` as ONNX.

    Args:
        path: The file.
        network: The network.
        arch: The checkpoint's ``arch``, of which ``name``, ``num_classes`` and ``in_channels`` are used.
        metadata: The entries of the model's metadata.

    Raises:
        ExportError: If the package ``onnx`` is missing, or the network is no `FCN` or too large for one ONNX file.
    """
    onnx = _required("onnx")
    if not isinstance(network, FCN):
        raise ExportError(f"format=onnx: knows the networks of this package, not {arch['name']}; use format=mindir")
    arrays = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST:
        raise ExportError(
            f"format=onnx: the weights take {size / 2**30:.1f} GiB, and a file holds 2 at most; use format=safetensors"
        )
    graph = _GraphBuilder(arrays)
    graph.write_fcn(network)
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
        pools = self.vgg(features) if isinstance(encoder, VGG16Encoder) else self.alexnet(features)
        features = self.node("Relu", [self.convolution(pools[-1], "fc6", padding=network.fc6.padding)])
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

    def vgg(self, features: str) -> list[str]:
        """Write `VGG16Encoder`, and return its five maps."""
        pools = []
        for block, (convolutions, _) in enumerate(BLOCKS, start=1):
            for index in range(1, convolutions + 1):
                prefix = f"encoder.block{block}."
                features = self.convolution(features, f"{prefix}conv{index}", padding=1)
                if f"{prefix}norm{index}.gamma" in self._arrays:
                    features = self.normalisation(features, f"{prefix}norm{index}")
                features = self.node("Relu", [features])
            features = self.node("MaxPool", [features], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
            pools.append(features)
        return pools

    def alexnet(self, features: str) -> list[str]:
        """Write `AlexNetEncoder`, and return its three maps."""
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

    def overlapping_pool(self, features: str) -> str:
        sizes = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
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

    def convolution(self, features: str, layer: str, padding: int = 0, **attributes: Any) -> str:
        names = [f"{layer}.weight", *([f"{layer}.bias"] if f"{layer}.bias" in self._arrays else [])]
        return self.node("Conv", [features, *map(self.parameter, names)], pads=[padding] * 4, **attributes)

    def normalisation(self, features: str, layer: str) -> str:
        names = [f"{layer}.{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        return self.node("BatchNormalization", [features, *map(self.parameter, names)], epsilon=1e-5)

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
