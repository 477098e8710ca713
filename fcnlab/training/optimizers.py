"""Optimizers as cells, which are called with the gradients and the learning rate of the step.

The learning rate is an input, not a state: it comes from a schedule that is a function of the step. Weight decay leaves
out biases and normalisation, which are the parameters with a single dimension. A group of parameters may have a factor
on the learning rate, and a weight decay that counts for all of its parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from fcnlab.training.parameter_groups import LR, WEIGHT_DECAY, assign_groups

Groups = Sequence[Mapping[str, Any]]
"""Groups of parameters, each with a ``pattern`` of names and perhaps ``lr`` and ``weight_decay``."""


class _Optimizer(nn.Cell):
    """The parameters in the order of the gradients, with the weight decay and the learning rate of each of them.

    Raises:
        ConfigError: If a group has no parameter.
    """

    def __init__(self, parameters: Iterable[Parameter], weight_decay: float, groups: Groups) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        chosen = assign_groups([parameter.name for parameter in self.parameters], groups)
        self.weight_decays = tuple(
            float(group.get(WEIGHT_DECAY, weight_decay if parameter.ndim > 1 else 0))
            for parameter, group in zip(self.parameters, chosen, strict=True)
        )
        factors = [float(group.get(LR, 1)) for group in chosen]
        self.factors = tuple(sorted(set(factors)))
        self.factor_indices = tuple(self.factors.index(factor) for factor in factors)

    def rates(self, learning_rate: Tensor) -> tuple[Tensor, ...]:
        """Return the learning rate times each factor; a factor of 1 costs nothing."""
        rates = ()
        for factor in self.factors:
            if factor == 1:
                rates += (learning_rate,)
            else:
                rates += (learning_rate * factor,)
        return rates

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
        groups: Groups of parameters; the first that matches a parameter's name counts.

    Raises:
        ConfigError: If a group has no parameter.
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
        groups: Groups = (),
    ) -> None:
        super().__init__(parameters, weight_decay, groups)
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
        rates = self.rates(learning_rate)
        for index in range(len(self.parameters)):
            parameter = self.parameters[index]
            gradient = gradients[index]
            rate = rates[self.factor_indices[index]]
            decay = self.weight_decays[index]
            if decay > 0:
                if self.decoupled:
                    ops.assign(parameter, parameter * (1 - rate * decay))
                else:
                    gradient = gradient + decay * parameter
            self.update(
                parameter,
                self.first[index],
                self.second[index],
                beta1_power,
                beta2_power,
                rate,
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
        groups: Groups of parameters; the first that matches a parameter's name counts.

    Raises:
        ConfigError: If a group has no parameter.
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
        groups: Groups of parameters; the first that matches a parameter's name counts.

    Raises:
        ConfigError: If a group has no parameter.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        groups: Groups = (),
    ) -> None:
        super().__init__(parameters, weight_decay, groups)
        self.velocity = self.zeros("velocity")
        self.momentum = Tensor(momentum, ms.float32)
        self.update = ops.ApplyMomentum()

    def construct(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> None:
        rates = self.rates(learning_rate)
        for index in range(len(self.parameters)):
            parameter = self.parameters[index]
            gradient = gradients[index]
            decay = self.weight_decays[index]
            if decay > 0:
                gradient = gradient + decay * parameter
            rate = rates[self.factor_indices[index]]
            self.update(parameter, self.velocity[index], rate, gradient, self.momentum)
