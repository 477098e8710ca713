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

from fcnlab.core.errors import ExportError
from fcnlab.models.vgg import BLOCKS

OPSET = 17
IR_VERSION = 8  # of ONNX 1.12, so that older runtimes take it

INPUT, OUTPUT = "images", "logits"
"""The names of the graph's input, N x channels x H x W, and output, N x C x H x W; both float32."""

_LARGEST = 2**31 - 2**20
"""The most bytes of weights that protobuf takes, with room for the graph."""


def write_onnx(
    path: Path, arrays: Mapping[str, np.ndarray], arch: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Write an `FCN` as ONNX.

    Args:
        path: The file.
        arrays: The parameters by name.
        arch: The checkpoint's ``arch``, of which ``name``, ``num_classes`` and ``in_channels`` are used.
        metadata: The entries of the model's metadata.

    Raises:
        ExportError: If the package ``onnx`` is missing, or the network is no `FCN` or too large for one ONNX file.
    """
    onnx = _required("onnx")
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST:
        raise ExportError(
            f"format=onnx: the weights take {size / 2**30:.1f} GiB, and a file holds 2 at most; use format=safetensors"
        )
    graph = _GraphBuilder(arrays)
    graph.write_fcn(stride_of(arch, arrays))
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


def stride_of(arch: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Return the stride of an `FCN`, from the shape of its last layer.

    Raises:
        ExportError: If the network is no `FCN`.
    """
    weight = arrays.get("upsample.weight")
    if weight is None or "encoder.block1.conv1.weight" not in arrays:
        raise ExportError(f"format=onnx: knows the networks of this package, not {arch['name']}; use format=mindir")
    return weight.shape[2] // 2


class _GraphBuilder:
    """Collects the nodes of a graph; each method adds one and returns the name of its output."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._known: set[str] = set()

    def write_fcn(self, stride: int) -> None:
        """Write `fcnlab.models.FCN`, layer by layer."""
        shape = self.node("Shape", [INPUT])
        spatial = self.slice(shape, [2], [4], [0])
        # Images are padded to a multiple of 32, to the right and bottom. Mod takes the sign of the divisor.
        beyond = self.node("Mod", [self.node("Neg", [spatial]), self.constant("grid", [32])])
        pads = self.node("Concat", [self.constant("no_pads", [0] * 6), beyond], axis=0)
        features = self.node("Pad", [INPUT, pads])
        pools = []
        for block, (convolutions, _) in enumerate(BLOCKS, start=1):
            for index in range(1, convolutions + 1):
                prefix = f"encoder.block{block}."
                features = self.convolution(features, f"{prefix}conv{index}", padding=1)
                if f"{prefix}norm{index}.gamma" in self._arrays:
                    features = self.normalisation(features, f"{prefix}norm{index}")
                features = self.node("Relu", [features])
            features = self.node("MaxPool", [features], kernel_shape=[2, 2], strides=[2, 2])
            pools.append(features)
        kernel = self._arrays["fc6.weight"].shape[2]
        features = self.node("Relu", [self.convolution(features, "fc6", padding=kernel // 2)])
        features = self.node("Relu", [self.convolution(features, "fc7")])
        score = self.convolution(features, "score")
        for pool in (4, 3, 2, 1):
            if 2**pool >= stride:
                skip = self.convolution(pools[pool - 1], f"score_pool{pool}")
                score = self.node("Add", [self.upsampling(score, f"upsample_pool{pool}"), skip])
        score = self.upsampling(score, "upsample")
        starts, axes = self.constant("starts", [0, 0]), self.constant("axes", [2, 3])
        self.node("Slice", [score, starts, spatial, axes], output=OUTPUT)

    def convolution(self, features: str, layer: str, padding: int = 0) -> str:
        names = [f"{layer}.weight", *([f"{layer}.bias"] if f"{layer}.bias" in self._arrays else [])]
        return self.node("Conv", [features, *map(self.parameter, names)], pads=[padding] * 4)

    def normalisation(self, features: str, layer: str) -> str:
        names = [f"{layer}.{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        return self.node("BatchNormalization", [features, *map(self.parameter, names)], epsilon=1e-5)

    def upsampling(self, features: str, layer: str) -> str:
        weight = f"{layer}.weight"
        stride = self._arrays[weight].shape[2] // 2
        sizes = {"kernel_shape": [2 * stride] * 2, "strides": [stride] * 2, "pads": [stride // 2] * 4}
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

    def parameter(self, name: str) -> str:
        if name not in self._arrays:
            raise ExportError(f"format=onnx: the checkpoint has no {name}; it belongs to another network")
        return self.initializer(name, self._arrays[name].astype(np.float32, copy=False))

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
