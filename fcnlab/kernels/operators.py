"""The compiled operators as MindSpore primitives with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mindspore import ops
from mindspore.ops import CustomRegOp, DataType, Primitive

from fcnlab.kernels.selection import has_bfloat16_products, library


def convolution3x3() -> Primitive | None:
    """Return a 3x3 convolution of stride 1, zero-padded by 1, without bias, or None to use MindSpore's.

    It takes images (N x I x H x W) and a weight (O x I x 3 x 3), both float32, and returns N x O x H x W.
    """
    path = library()
    return path and _convolution3x3(path)


@cache
def _convolution3x3(path: Path) -> Primitive:
    return _operator(path, "conv3x3", 2, _convolution3x3_backward(path))


def _convolution3x3_backward(path: Path) -> Callable:
    input_gradient = _operator(path, "conv3x3_input_gradient", 2)
    weight_gradient = _operator(path, "conv3x3_weight_gradient", 2)

    def backward(images: Any, weight: Any, output: Any, gradient: Any) -> tuple[Any, Any]:
        return input_gradient(gradient, weight), weight_gradient(images, gradient)

    return backward


def convolution3x3_norm_relu(pool: bool) -> Primitive | None:
    """Return a 3x3 convolution with the normalisation, the ReLU and perhaps the pooling that follow it, or None.

    None means to use separate operators. It takes images (N x I x H x W), a weight (O x I x 3 x 3), the mean and the
    variance of each output channel (2 x O), which are constants, gamma and beta (O), all float32. It returns
    N x O x H x W, or N x O x H/2 x W/2 with 2x2 max-pooling, and never has the convolution's output in memory.
    """
    path = library()
    return path and _convolution3x3_norm_relu(path, pool)


@cache
def _convolution3x3_norm_relu(path: Path, pool: bool) -> Primitive:
    name = "norm_relu_pool" if pool else "norm_relu"
    convolution, through_convolution = _convolution3x3(path), _convolution3x3_backward(path)
    through_norm = _norm_relu_backward(path, name, _through_no_statistics)

    def backward(images: Any, weight: Any, statistics: Any, gamma: Any, beta: Any, output: Any, gradient: Any) -> tuple:
        features = convolution(images, weight)  # which the forward pass has not kept
        of_features, of_statistics, of_gamma, of_beta = through_norm(
            features, statistics, gamma, beta, output, gradient
        )
        of_images, of_weight = through_convolution(images, weight, features, of_features)
        return of_images, of_weight, of_statistics, of_gamma, of_beta

    return _operator(path, f"conv3x3_{name}", 5, backward)


def direct_convolution() -> Primitive | None:
    """Return a convolution of any odd kernel, stride 1, zero-padded to the input's size, with bias, or None.

    None means to use MindSpore's. It is for large kernels on coarse maps. It takes images (N x I x H x W), a weight
    (O x I x K x K) and a bias (O), all float32, and returns N x O x H x W.
    """
    path = library()
    return path and _direct_convolution(path)


@cache
def _direct_convolution(path: Path) -> Primitive:
    input_gradient = _operator(path, "direct_convolution_input_gradient", 2)
    weight_gradient = _operator(path, "direct_convolution_weight_gradient", 3)
    bias_gradient = _channel_sums(path)

    def backward(images: Any, weight: Any, bias: Any, output: Any, gradient: Any) -> tuple[Any, Any, Any]:
        of_weight = weight_gradient(images, gradient, weight)
        return input_gradient(gradient, weight), of_weight, bias_gradient(gradient)

    return _operator(path, "direct_convolution", 3, backward)


def of_bfloat16(convolution: Primitive) -> Primitive | None:
    """Return a compiled convolution whose factors are bfloat16 and whose sums are float32, or None.

    It takes and returns float32, as the given one does, and rounds the factors itself, in the backward pass, too. None
    means that the processor has no matrix instructions for bfloat16 (AMX), or that there is no such operator.

    Args:
        convolution: What `convolution3x3` or `direct_convolution` returned.
    """
    path = library()
    if path is None or not has_bfloat16_products():
        return None
    if convolution is _convolution3x3(path):
        return _bfloat16_convolution(path, has_bias=False)
    return _bfloat16_convolution(path, has_bias=True) if convolution is _direct_convolution(path) else None


@cache
def _bfloat16_convolution(path: Path, has_bias: bool) -> Primitive:
    input_gradient = _operator(path, "bfloat16_convolution_input_gradient", 2)
    weight_gradient = _operator(path, "bfloat16_convolution_weight_gradient", 3)
    bias_gradient = _channel_sums(path)

    def backward(images: Any, weight: Any, output: Any, gradient: Any) -> tuple[Any, Any]:
        return input_gradient(gradient, weight), weight_gradient(images, gradient, weight)

    def backward_with_bias(images: Any, weight: Any, bias: Any, output: Any, gradient: Any) -> tuple[Any, Any, Any]:
        return *backward(images, weight, output, gradient), bias_gradient(gradient)

    if has_bias:
        return _operator(path, "bfloat16_convolution_with_bias", 3, backward_with_bias)
    return _operator(path, "bfloat16_convolution", 2, backward)


def upsampling() -> Primitive | None:
    """Return a transposed convolution of kernel 2s, stride s and padding s/2 without bias, or None.

    None means to use MindSpore's. It takes images (N x I x H x W) and a weight (I x O x 2s x 2s) with an even s, both
    float32, and returns N x O x sH x sW.
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


class NormReluOperators(NamedTuple):
    """Batch normalisation, ReLU and perhaps 2x2 max-pooling as primitives over float32 tensors.

    Attributes:
        statistics: From images (N x C x H x W) to the mean and the biased variance of each channel (2 x C), without a
            gradient.
        by_batch: From images, their own statistics, gamma and beta to the activations. The gradient with respect to the
            images includes that of their statistics.
        by_constants: The same with statistics that are constants.
    """

    statistics: Primitive
    by_batch: Primitive
    by_constants: Primitive


def norm_relu(pool: bool) -> NormReluOperators | None:
    """Return `NormReluOperators` with an epsilon of 1e-5, or None to use MindSpore's operators."""
    path = library()
    return path and _norm_relu(path, "norm_relu_pool" if pool else "norm_relu")


@cache
def _norm_relu(path: Path, name: str) -> NormReluOperators:
    def own(images: Any, sums: Any) -> Any:
        return sums

    return NormReluOperators(
        _channel_statistics(path),
        _operator(path, name, 4, _norm_relu_backward(path, name, own), "of own statistics"),
        _operator(path, name, 4, _norm_relu_backward(path, name, _through_no_statistics), "of constants"),
    )


@cache
def _channel_statistics(path: Path) -> Primitive:
    def no_gradient(images: Any, output: Any, gradient: Any) -> tuple:
        return (ops.zeros_like(images),)

    return _operator(path, "channel_statistics", 1, no_gradient)


def _through_no_statistics(images: Any, sums: Any) -> Any:
    """Return the sums that reach the images through statistics that are constants: none."""
    return ops.zeros_like(sums)


def norm_relu_of_workers(pool: bool) -> Primitive | None:
    """Return the operator `NormReluOperators.by_batch` for statistics over the batches of all workers, or None.

    The gradient with respect to the images of this worker includes that of the statistics of all workers.
    """
    path = library()
    return path and _norm_relu_of_workers(path, "norm_relu_pool" if pool else "norm_relu")


@cache
def _norm_relu_of_workers(path: Path, name: str) -> Primitive:
    all_reduce = ops.AllReduce()

    def of_workers(images: Any, sums: Any) -> Any:
        own = images.shape[0] * images.shape[2] * images.shape[3]
        total = all_reduce(ops.concat((sums.reshape(-1), ops.fill(sums.dtype, (1,), own))))
        # The operator divides by the pixels of this worker, and the mean is that over the pixels of all workers.
        return total[:-1].reshape(sums.shape) * (own / total[-1])

    return _operator(path, name, 4, _norm_relu_backward(path, name, of_workers), "of all workers' statistics")


def _norm_relu_backward(path: Path, name: str, through_statistics: Callable) -> Callable:
    """Return the backward pass of the normalisation.

    Args:
        path: The library.
        name: The operator's name.
        through_statistics: From the images and the sums over the pixels that beta's and gamma's gradients are (2 x C)
            to the sums that reach the images through the statistics.
    """
    gradient_sums = _operator(path, f"{name}_sums", 5)
    input_gradient = _operator(path, f"{name}_input_gradient", 6)
    rows = ops.Unstack(axis=0, num=2)

    def backward(images: Any, statistics: Any, gamma: Any, beta: Any, output: Any, gradient: Any) -> tuple:
        sums = gradient_sums(images, gradient, statistics, gamma, beta)
        of_images = input_gradient(images, gradient, statistics, gamma, beta, through_statistics(images, sums))
        of_beta, of_gamma = rows(sums)
        return of_images, ops.zeros_like(statistics), of_gamma, of_beta

    return backward


def channel_sums() -> Primitive | None:
    """Return the sum over images and pixels from N x C x H x W to C, float32, or None to use MindSpore's operators."""
    path = library()
    return path and _channel_sums(path)


@cache
def _channel_sums(path: Path) -> Primitive:
    def backward(images: Any, output: Any, gradient: Any) -> tuple[Any]:
        return (ops.ones_like(images) * gradient.reshape(1, -1, 1, 1),)

    return _operator(path, "channel_sums", 1, backward)


def cross_entropy() -> Primitive | None:
    """Return the softmax cross-entropy of each pixel, or None to use MindSpore's operators.

    It takes logits (N x C x H x W, float32) and labels (N x H x W, int32), and returns N x H x W, float32. A label that
    is not 0 to C - 1 has the loss 0 and the gradient 0.
    """
    path = library()
    return path and _cross_entropy(path)


@cache
def _cross_entropy(path: Path) -> Primitive:
    labelled = (DataType.F32_Default, DataType.I32_Default)
    logits_gradient = _operator(path, "cross_entropy_logits_gradient", (*labelled, DataType.F32_Default))

    def backward(logits: Any, labels: Any, output: Any, gradient: Any) -> tuple[Any, Any]:
        return logits_gradient(logits, labels, gradient), ops.zeros_like(labels)

    return _operator(path, "cross_entropy", labelled, backward)


_backward_passes: dict[tuple[Path, str, str], Callable] = {}


def _operator(
    path: Path, function: str, inputs: int | Sequence[Any], backward: Callable | None = None, rule: str = ""
) -> Primitive:
    """Return a function of the library with one output, which is float32, as a primitive.

    The inputs are as many float32 tensors, or tensors of these types.

    A function with several backward passes needs a ``rule`` for each, which becomes an attribute: within a graph,
    MindSpore takes primitives of the same name and attributes for one, and computes the gradients of all of them by the
    backward pass of one.

    The library infers the shape too (``<function>InferShape``), since MindSpore takes no Python function for a dynamic
    height and width. The registration has a name, since MindSpore confuses unnamed operators when it loads a compiled
    graph.
    """
    registration = CustomRegOp(function)
    types = [DataType.F32_Default] * inputs if isinstance(inputs, int) else inputs
    for index in range(len(types)):
        registration = registration.input(index, f"input{index}")
    registration = registration.output(0, "output").dtype_format(*types, DataType.F32_Default).target("CPU")
    if backward is not None and _backward_passes.setdefault((path, function, rule), backward) is not backward:
        raise ValueError(f"{function} has another backward pass already: give this one a rule of its own")
    primitive = ops.Custom(
        f"{path}:{function}",
        None,
        lambda *dtypes: dtypes[0],
        "aot",
        bprop=backward,
        reg_info=registration.get_op_info(),
    )
    return primitive.add_prim_attr("backward_pass", rule)
