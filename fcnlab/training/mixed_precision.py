"""Networks that compute in float16 or bfloat16, while their parameters, images and logits stay float32.

The levels ``O2``, ``O3`` and ``auto`` are those of ``mindspore.amp.auto_mixed_precision``, which converts the cells.
On a CPU the float16 tensors are real, so that what is computed is rounded, overflows and vanishes as float16 does. The
arithmetic of one operator is float32, and its result is rounded: neither MindSpore's CPU operators nor those of
`fcnlab.kernels` have another one.

With ``bf16``, the factors of each product (convolution, transposed convolution, matrix product) are rounded to
bfloat16, forward and backward, and their products are added up in float32. Everything else is float32. On a processor
with matrix instructions for bfloat16 (AMX), compiled operators compute the convolutions by these; elsewhere, and for
the other products, the rounded factors go through the float32 operators, which compute the same sums but no faster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, amp, nn
from mindspore import dtype as mstype
from mindspore.ops import Primitive

from fcnlab import kernels
from fcnlab.core.errors import ConfigError
from fcnlab.models.layers import GroupNorm, NormRelu, SynchronisedNorm, SynchronisedNormRelu

log = logging.getLogger(__name__)

LEVELS = ("O0", "O2", "O3", "auto", "bf16")
"""The values of ``trainer.amp``."""

SCALED_LEVELS = ("O2", "O3", "auto")
"""The levels of float16, whose small gradients would vanish if the loss were not scaled; bfloat16 reaches as far as
float32 does."""

_NORMS = (*amp.get_black_list(), nn.SyncBatchNorm, nn.GroupNorm, GroupNorm)
_PRODUCTS = ("Conv2D", "Conv2DBackpropInput", "Conv2DTranspose", "MatMul", "BatchMatMul", "Custom")


class MixedPrecision(nn.Cell):
    """A network at a level of mixed precision, whose cells it changes.

    Args:
        network: A cell from N x C x H x W images, and perhaps dropout masks, to logits.
        level: ``"O2"``, ``"O3"``, ``"auto"`` or ``"bf16"``.

    Inputs:
        - **images** - N x C x H x W, float32.
        - **masks** - The network's dropout masks, if it takes any.

    Outputs:
        The logits, float32.
    """

    def __init__(self, network: nn.Cell, level: str) -> None:
        super().__init__(auto_prefix=False)
        self.inner = network  # what follows may return a cell around it
        self.network = _CONVERSIONS[level](network)
        if hasattr(network, "dropout_masks"):
            self.dropout_masks = network.dropout_masks

    def construct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        logits = self.network(images) if masks is None else self.network(images, masks)
        return logits.astype(mstype.float32)


def with_parameters_of(network: nn.Cell, twin: nn.Cell) -> nn.Cell:
    """Give a network that was built alike the parameters of another one, so that training the one trains both.

    Args:
        network: The network that keeps its parameters.
        twin: The network that loses its own.

    Returns:
        The twin.

    Raises:
        ConfigError: If a cell, as of another package, keeps parameters where they cannot be replaced.
    """
    ours = {parameter.name: parameter for parameter in network.get_parameters()}
    for _, cell in twin.cells_and_names():
        for attribute, parameter in list(cell._params.items()):
            if parameter is not None:
                cell.insert_param_to_cell(attribute, ours[parameter.name])
        # A tuple or a list of parameters would still hold the twin's own.
        if any(isinstance(item, Parameter) for value in vars(cell).values() for item in _items(value)):
            raise ConfigError(
                f"trainer.amp: {type(cell).__name__} keeps parameters in a tuple or a list, so that its network cannot "
                "be computed in two precisions; use trainer.amp=O0"
            )
    return twin


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple | list) else ()


def _float16_but_norms(network: nn.Cell) -> nn.Cell:
    return amp.custom_mixed_precision(network, black_list=list(_NORMS))


def _float16(network: nn.Cell) -> nn.Cell:
    # The compiled normalisation has no float16 of its own, and moving averages would stand still in it. So it takes and
    # gives float16 maps, and its scale, shift and statistics are float32, as those of MindSpore's BatchNorm stay, too.
    # So are the statistics of several workers, whose counts of pixels go beyond float16.
    kept = [SynchronisedNorm, SynchronisedNormRelu]
    if any(not norm.stock for norm in _cells(network, NormRelu)):
        kept.append(NormRelu)
    if _cells(network, tuple(kept)):
        return amp.custom_mixed_precision(network, black_list=kept)
    return amp.auto_mixed_precision(network, "O3")


def _by_operator(network: nn.Cell) -> nn.Cell:
    # MindSpore's lists know its own operators alone.
    _wrap_products(network, _InFloat16, ("Custom",))
    for norm in _cells(network, _NORMS):
        norm.to_float(mstype.float32)
    return amp.auto_mixed_precision(network, "auto")


def _bfloat16_products(network: nn.Cell) -> nn.Cell:
    if ms.get_context("device_target") == "CPU":
        how = (
            "by matrix instructions (AMX)"
            if kernels.has_bfloat16_products()
            else "in float32, so that nothing is faster"
        )
        log.info("trainer.amp=bf16: factors are rounded to bfloat16, and their products are computed %s", how)
    _wrap_products(network, _in_bfloat16, _PRODUCTS)
    return network


def _in_bfloat16(operator: Primitive) -> nn.Cell | Primitive:
    return kernels.of_bfloat16(operator) or InBfloat16(operator)


_CONVERSIONS = {"O2": _float16_but_norms, "O3": _float16, "auto": _by_operator, "bf16": _bfloat16_products}


def _cells(network: nn.Cell, kinds: type | tuple[type, ...]) -> list[nn.Cell]:
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, kinds)]


def _wrap_products(
    network: nn.Cell, wrapper: Callable[[Primitive], nn.Cell | Primitive], names: tuple[str, ...]
) -> None:
    """Replace every operator of the network's layers that multiplies, but not of their normalisation."""
    for cell in _cells(network, nn.Cell):
        if isinstance(cell, _NORMS):
            continue
        for attribute, operator in list(cell._primitives.items()):
            if isinstance(operator, Primitive) and operator.name in names:
                del cell._primitives[attribute]
                setattr(cell, attribute, wrapper(operator))


class _InFloat16(nn.Cell):
    """An operator whose inputs are float16."""

    def __init__(self, operator: Primitive) -> None:
        super().__init__(auto_prefix=False)
        self.operator = operator

    def construct(self, *inputs: Any) -> Tensor:
        halves = ()
        for values in inputs:
            halves += (values.astype(mstype.float16),)
        return self.operator(*halves)


class InBfloat16(nn.Cell):
    """An operator whose first two inputs are bfloat16, and whose output is float32.

    Where the device has no operator for bfloat16, as a CPU has none, these inputs and the gradient of the output are
    rounded to bfloat16 and stay float32, so that an operator for float32 computes the same.

    Args:
        operator: The operator.
        native: Whether the operator takes bfloat16; by default, what is not a CPU does.
    """

    def __init__(self, operator: Primitive, native: bool | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.operator = operator
        self.native = ms.get_context("device_target") != "CPU" if native is None else native
        self.rounded = Rounded()
        self.rounded_gradient = RoundedGradient()

    def construct(self, left: Tensor, right: Tensor, *others: Any) -> Tensor:
        if self.native:
            product = self.operator(left.astype(mstype.bfloat16), right.astype(mstype.bfloat16), *others)
            return product.astype(mstype.float32)
        return self.rounded_gradient(self.operator(self.rounded(left), self.rounded(right), *others))


def _round(values: Tensor) -> Tensor:
    return values.astype(mstype.bfloat16).astype(mstype.float32)


class Rounded(nn.Cell):
    """Round float32 to the nearest bfloat16, of two to the even one; the gradient passes as it is."""

    def construct(self, values: Tensor) -> Tensor:
        return _round(values)

    def bprop(self, values: Tensor, output: Tensor, gradient: Tensor) -> tuple[Tensor]:
        return (gradient,)


class RoundedGradient(nn.Cell):
    """Pass values as they are, and round their gradient as `Rounded` does."""

    def construct(self, values: Tensor) -> Tensor:
        return values

    def bprop(self, values: Tensor, output: Tensor, gradient: Tensor) -> tuple[Tensor]:
        return (_round(gradient),)
