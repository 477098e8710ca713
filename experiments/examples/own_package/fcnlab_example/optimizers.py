"""An optimizer with a key of its own, and without weight decay."""

from collections.abc import Iterable
from dataclasses import dataclass

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops


@dataclass
class SignSGDConfig:
    """The keys of the optimizer, which gets a name and a learning rate besides."""

    damping: float = 1.0


class SignSGD(nn.Cell):
    """SignSGD: steps of one size, whatever the size of the gradient (Bernstein et al. 2018)."""

    Config = SignSGDConfig

    def __init__(self, parameters: Iterable[Parameter], damping: float) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.damping = damping

    def construct(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> None:
        for index in range(len(self.parameters)):
            step = learning_rate * ops.sign(gradients[index]) / self.damping
            ops.assign_sub(self.parameters[index], step)
