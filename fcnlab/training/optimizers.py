"""Optimizers as cells, which are called with the gradients and the learning rate of the step.

The learning rate is an input, not a state: it comes from a schedule that is a function of the step. Weight decay leaves
out biases and normalisation, which are the parameters with a single dimension.
"""

from __future__ import annotations

from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops


class _Optimizer(nn.Cell):
    """The parameters in the order of the gradients, and whether each of them decays."""

    def __init__(self, parameters: Iterable[Parameter], weight_decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.weight_decay = weight_decay
        self.decays = tuple(weight_decay > 0 and parameter.ndim > 1 for parameter in self.parameters)

    def zeros(self, name: str) -> ParameterTuple:
        """Return a state of zeros for each parameter, called ``optimizer.<name>.<parameter>``.

        The zeros are written, not merely allocated: memory that is read before it is written to is mapped twice, which
        took three seconds of the first step at width 1.
        """
        return ParameterTuple(
            Parameter(
                Tensor.from_numpy(np.full(parameter.shape, 0, np.float32)),
                name=f"optimizer.{name}.{parameter.name}",
                requires_grad=False,
            )
            for parameter in self.parameters
        )


class Adam(_Optimizer):
    """Adam (Kingma & Ba 2015, the efficient form at the end of section 2); weight decay is added to the gradient.

    Args:
        parameters: The parameters to update.
        weight_decay: The factor of the L2 penalty.
        beta1: The decay rate of the first moment.
        beta2: The decay rate of the second moment.
        epsilon: The paper's epsilon-hat, added to the root of the second moment before its bias is corrected.
    """

    decoupled = False
    epsilon_after_correction = False

    def __init__(
        self,
        parameters: Iterable[Parameter],
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, weight_decay)
        self.first = self.zeros("first")
        self.second = self.zeros("second")
        self.beta1 = Tensor(beta1, ms.float32)
        self.beta2 = Tensor(beta2, ms.float32)
        self.epsilon = Tensor(epsilon, ms.float32)
        self.beta1_power = Parameter(Tensor(1.0, ms.float32), name="optimizer.beta1_power", requires_grad=False)
        self.beta2_power = Parameter(Tensor(1.0, ms.float32), name="optimizer.beta2_power", requires_grad=False)
        self.update = ops.Adam()  # one fused pass over parameter, moments and gradient

    def construct(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> None:
        beta1_power = self.beta1_power * self.beta1
        beta2_power = self.beta2_power * self.beta2
        ops.assign(self.beta1_power, beta1_power)
        ops.assign(self.beta2_power, beta2_power)
        epsilon = self.epsilon
        if self.epsilon_after_correction:
            # The operator adds epsilon before the correction, and divides both by this root.
            epsilon = epsilon * ops.sqrt(1 - beta2_power)
        for index in range(len(self.parameters)):
            parameter = self.parameters[index]
            gradient = gradients[index]
            if self.decays[index]:
                if self.decoupled:
                    ops.assign(parameter, parameter * (1 - learning_rate * self.weight_decay))
                else:
                    gradient = gradient + self.weight_decay * parameter
            self.update(
                parameter,
                self.first[index],
                self.second[index],
                beta1_power,
                beta2_power,
                learning_rate,
                self.beta1,
                self.beta2,
                epsilon,
                gradient,
            )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    The learning rate is the algorithm's alpha times its schedule multiplier, and ``learning_rate * weight_decay`` is
    the multiplier times lambda: a weight loses that share of itself in a step, as in PyTorch's ``AdamW``.

    Args:
        parameters: The parameters to update.
        weight_decay: The share of a weight that is lost in a step of learning rate 1.
        beta1: The decay rate of the first moment.
        beta2: The decay rate of the second moment.
        epsilon: A number added to the root of the second moment after its bias is corrected, as in line 12 of the
            algorithm, where `Adam` adds it before.
    """

    decoupled = True
    epsilon_after_correction = True


class SGD(_Optimizer):
    """Stochastic gradient descent; weight decay is added to the gradient.

    ``velocity = momentum * velocity + gradient; parameter -= lr * velocity``, as in the paper's section 4.3.

    Args:
        parameters: The parameters to update.
        weight_decay: The factor of the L2 penalty.
        momentum: The share of the last velocity that is kept.
    """

    def __init__(self, parameters: Iterable[Parameter], weight_decay: float = 0.0, momentum: float = 0.9) -> None:
        super().__init__(parameters, weight_decay)
        self.velocity = self.zeros("velocity")
        self.momentum = Tensor(momentum, ms.float32)
        self.update = ops.ApplyMomentum()

    def construct(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> None:
        for index in range(len(self.parameters)):
            parameter = self.parameters[index]
            gradient = gradients[index]
            if self.decays[index]:
                gradient = gradient + self.weight_decay * parameter
            self.update(parameter, self.velocity[index], learning_rate, gradient, self.momentum)
