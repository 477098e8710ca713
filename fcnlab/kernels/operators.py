"""The compiled functions as MindSpore primitives, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mindspore import ops
from mindspore.ops import CustomRegOp, DataType, Primitive

from fcnlab.kernels.selection import library


def convolution3x3() -> Primitive | None:
    """A 3x3 convolution of stride 1, zero-padded by 1, without bias; None to use MindSpore's.

    Called with images (N x I x H x W) and weight (O x I x 3 x 3), both float32; gives N x O x H x W.
    """
    path = library()
    return path and _convolution3x3(path)


@cache
def _convolution3x3(path: Path) -> Primitive:
    input_gradient = _operator(path, "conv3x3_input_gradient", 2)
    weight_gradient = _operator(path, "conv3x3_weight_gradient", 2)

    def backward(images: Any, weight: Any, output: Any, gradient: Any) -> tuple[Any, Any]:
        return input_gradient(gradient, weight), weight_gradient(images, gradient)

    return _operator(path, "conv3x3", 2, backward)


def _operator(path: Path, function: str, inputs: int, backward: Callable | None = None) -> Primitive:
    """A function of the library over float32 tensors, with one output.

    The shape comes from the library too (``<function>InferShape``), and the registration names the function: MindSpore
    takes no Python for a dynamic height and width, and mixes up unnamed operators when it loads a compiled graph.
    """
    registration = CustomRegOp(function)
    for index in range(inputs):
        registration = registration.input(index, f"input{index}")
    registration = registration.output(0, "output").dtype_format(*[DataType.F32_Default] * (inputs + 1)).target("CPU")
    return ops.Custom(
        f"{path}:{function}",
        None,
        lambda *dtypes: dtypes[0],
        "aot",
        bprop=backward,
        reg_info=registration.get_op_info(),
    )
