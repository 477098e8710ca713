"""Dynamic loss scaling, which keeps small gradients from vanishing in float16 and finds the largest scale that does.

The loss is multiplied by a scale before it is differentiated, and the gradients are divided by it in float32. A step
whose gradients overflow is skipped and halves the scale; after some steps in a row without an overflow it doubles.

Source: Micikevicius et al., ICLR 2018, section 3.2 and its end.
"""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from fcnlab.core.errors import ConfigError

SMALLEST, LARGEST = 2.0**-24, 2.0**24
"""The smallest scale is float16's smallest number. A loss that is a sum over pixels needs scales below 1."""


class LossScale(nn.Cell):
    """The scale of the loss, and what it depends on, which a training's state holds like weights and moments.

    Args:
        initial: The first scale, a power of two, so that scaling rounds nothing.
        window: The number of steps without an overflow, in a row, after which the scale is doubled.

    Attributes:
        scale: A scalar, float32, by which a compiled step multiplies the loss.

    Raises:
        ConfigError: If the first scale is no power of two from `SMALLEST` to `LARGEST`.
    """

    def __init__(self, initial: float = 2.0**16, window: int = 2000) -> None:
        super().__init__(auto_prefix=False)
        if not SMALLEST <= initial <= LARGEST or math.frexp(initial)[0] != 0.5:
            raise ConfigError(
                f"trainer.loss_scale={initial:g}: give a power of two from 2**-24 to 2**24, such as 65536 or 1024"
            )
        self.window = window
        self.scale = _number(initial, ms.float32, "scale")
        self.good_steps = _number(0, ms.int32, "good_steps")
        self.overflows = _number(0, ms.int32, "overflows")

    @property
    def value(self) -> float:
        """The scale of the next step."""
        return float(self.scale.asnumpy())

    @property
    def count(self) -> int:
        """The number of steps that were skipped because of an overflow."""
        return int(self.overflows.asnumpy())

    @property
    def is_smallest(self) -> bool:
        """Whether an overflow cannot make the scale smaller any more."""
        return self.value <= SMALLEST

    def record(self, overflow: bool) -> None:
        """Count a step, and change the scale if it is time to."""
        if overflow:
            self._set(max(self.value / 2, SMALLEST), 0)
            self.overflows.set_data(Tensor(self.count + 1, ms.int32))
            return
        good_steps = int(self.good_steps.asnumpy()) + 1
        if good_steps < self.window:
            self._set(self.value, good_steps)
        else:
            self._set(min(self.value * 2, LARGEST), 0)

    def _set(self, scale: float, good_steps: int) -> None:
        if scale != self.value:
            self.scale.set_data(Tensor(scale, ms.float32))
        self.good_steps.set_data(Tensor(good_steps, ms.int32))

    def construct(self, loss: Tensor) -> Tensor:
        """Scale a loss."""
        return loss * self.scale

    def unscale(self, gradient: Tensor) -> Tensor:
        """Return the gradient of a loss from that of the scaled loss."""
        return gradient / self.scale


def _number(value: float, dtype: ms.dtype.Number, name: str) -> Parameter:
    return Parameter(Tensor(value, dtype), name=f"loss_scale.{name}", requires_grad=False)
