"""The compiled functions as MindSpore primitives, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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


def direct_convolution() -> Primitive | None:
    """A convolution of any odd kernel, stride 1, zero-padded to the input's size, with bias; None to use MindSpore's.

    For large kernels on coarse maps. Called with images (N x I x H x W), weight (O x I x K x K) and bias (O), all
    float32; gives N x O x H x W.
    """
    path = library()
    return path and _direct_convolution(path)


@cache
def _direct_convolution(path: Path) -> Primitive:
    input_gradient = _operator(path, "direct_convolution_input_gradient", 2)
    weight_gradient = _operator(path, "direct_convolution_weight_gradient", 3)

    def backward(images: Any, weight: Any, bias: Any, output: Any, gradient: Any) -> tuple[Any, Any, Any]:
        of_weight = weight_gradient(images, gradient, weight)
        return input_gradient(gradient, weight), of_weight, gradient.sum(axis=(0, 2, 3))

    return _operator(path, "direct_convolution", 3, backward)


def upsampling() -> Primitive | None:
    """A transposed convolution of kernel 2s, stride s and padding s/2, s even, without bias; None to use MindSpore's.

    Called with images (N x I x H x W) and weight (I x O x 2s x 2s), both float32; gives N x O x sH x sW.
    """
    path = library()
    return path and _upsampling(path)


@cache
def _upsampling(path: Path) -> Primitive:
    input_gradient = _operator(path, "upsampling_input_gradient", 2)
    weight_gradient = _operator(path, "upsampling_weight_gradient", 3)

    def backward(images: Any, weight: Any, output: Any, gradient: Any) -> tuple[Any, Any]:
        return input_gradient(gradient, weight), weight_gradient(images, gradient, weight)

    return _operator(path, "upsampling", 2, backward)


class NormRelu(NamedTuple):
    """Batch normalisation and ReLU, and perhaps the 2x2 max-pooling after them, as primitives over float32 tensors.

    Attributes:
        statistics: N x C x H x W to 2 x C, mean and biased variance of each channel. Has no gradient.
        by_batch: Images, such statistics of them, gamma and beta to the activations; the gradient of the images counts
            in that the statistics are theirs.
        by_constants: The same, with statistics that are constants.
    """

    statistics: Primitive
    by_batch: Primitive
    by_constants: Primitive


def norm_relu(pool: bool) -> NormRelu | None:
    """`NormRelu` with an epsilon of 1e-5; None to use MindSpore's operators."""
    path = library()
    return path and _norm_relu(path, "norm_relu_pool" if pool else "norm_relu")


@cache
def _norm_relu(path: Path, name: str) -> NormRelu:
    gradient_sums = _operator(path, f"{name}_sums", 5)
    input_gradient = _operator(path, f"{name}_input_gradient", 6)

    def backward_by_batch(images: Any, statistics: Any, gamma: Any, beta: Any, output: Any, gradient: Any) -> tuple:
        sums = gradient_sums(images, gradient, statistics, gamma, beta)
        of_images = input_gradient(images, gradient, statistics, gamma, beta, sums)
        return of_images, ops.zeros_like(statistics), sums[1], sums[0]

    def backward_by_constants(images: Any, statistics: Any, gamma: Any, beta: Any, output: Any, gradient: Any) -> tuple:
        sums = gradient_sums(images, gradient, statistics, gamma, beta)
        of_images = input_gradient(images, gradient, statistics, gamma, beta, ops.zeros_like(sums))
        return of_images, ops.zeros_like(statistics), sums[1], sums[0]

    def no_gradient(images: Any, output: Any, gradient: Any) -> tuple:
        return (ops.zeros_like(images),)

    return NormRelu(
        _operator(path, "channel_statistics", 1, no_gradient),
        _operator(path, name, 4, backward_by_batch),
        _operator(path, name, 4, backward_by_constants),
    )


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
