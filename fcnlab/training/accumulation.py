"""Updates from the gradients of several batches, as if these were one batch, in the memory of one of them."""

from __future__ import annotations

from collections.abc import Collection

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from fcnlab.core.errors import ConfigError
from fcnlab.losses import AccumulatedLoss
from fcnlab.training.step import GradientCheck, Update, moving_statistics, set_moving_statistics, trained_state


class _SumForward(nn.Cell):
    """The sums of a loss, of which the first is differentiated."""

    def __init__(self, network: nn.Cell, loss: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss

    def construct(self, images: Tensor, labels: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = self.network(images) if masks is None else self.network(images, masks)
        sums = self.loss.sums(logits, labels)
        return sums[0], sums


class _Addition(nn.Cell):
    """Add the gradients of a batch to those of earlier ones, and return the sums of its loss."""

    def __init__(
        self, forward: _SumForward, parameters: ParameterTuple, gradients: ParameterTuple, guarded: bool
    ) -> None:
        super().__init__(auto_prefix=False)
        self.forward = forward
        self.gradients = gradients
        self.check = GradientCheck(parameters, guarded)
        self.value_and_gradients = ms.value_and_grad(forward, None, parameters, has_aux=True)
        self.set_train(True)

    def construct(self, images: Tensor, labels: Tensor, masks: Tensor | None = None) -> Tensor:
        if masks is None:
            (_, sums), gradients = self.value_and_gradients(images, labels)
        else:
            (_, sums), gradients = self.value_and_gradients(images, labels, masks)
        for index in range(len(self.gradients)):
            ops.assign_add(self.gradients[index], gradients[index])
        return sums + self.check(gradients)


class _Application(nn.Cell):
    """Divide the added gradients by a number, update the parameters, and forget the gradients."""

    def __init__(self, update: Update, gradients: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.gradients = gradients

    def construct(self, loss: Tensor, divisor: Tensor, learning_rate: Tensor) -> Tensor:
        gradients = ()
        for index in range(len(self.gradients)):
            gradients += (self.gradients[index] / divisor,)
        loss = self.update(loss, gradients, learning_rate)
        for index in range(len(self.gradients)):
            ops.assign(self.gradients[index], ops.zeros_like(self.gradients[index]))
        return loss


class AccumulatedStep:
    """Updates a network's parameters on several batches as if they were one, but for what batch norm makes of each.

    The gradient of a mean over the pixels of all batches is not the mean of the batches' gradients, since batches
    differ in their void pixels and in the weights of their classes. So the gradients of the *sums* are added up, and
    divided once, by what the labels of all batches give: see `fcnlab.losses.AccumulatedLoss`.

    In addition to what a `fcnlab.training.step.TrainStep` of one such batch needs, this holds one copy of the
    gradients. It is no part of a training's state, which is saved between updates, when it is zero.

    Args:
        network: A cell from N x 3 x H x W images to N x C x H x W logits.
        loss: A `fcnlab.losses.AccumulatedLoss`.
        optimizer: A cell that takes the gradients, in the order of its ``parameters``, and the learning rate.
        clip_norm: The largest global norm of the gradient of all batches; None does not clip.
        guarded: Whether to make no update when the loss or any gradient is not finite.
        frozen: The names of the parameters that `fcnlab.training.freezing.freeze` has excluded from training.

    Raises:
        ConfigError: If the gradients of the loss cannot be added up.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        optimizer: nn.Cell,
        clip_norm: float | None = None,
        guarded: bool = False,
        frozen: Collection[str] = (),
    ) -> None:
        if not isinstance(loss, AccumulatedLoss):
            raise ConfigError(
                f"trainer.accumulate: the gradients of {type(loss).__name__} for several batches do not add up to that "
                "for one large batch, since it is no mean or sum over pixels; take loss=cross_entropy or loss=focal, "
                "or trainer.accumulate=1"
            )
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self._frozen = tuple(frozen)
        self._gradients = ParameterTuple(
            Parameter(
                Tensor.from_numpy(np.full(parameter.shape, 0, np.float32)),
                name=f"accumulated.{parameter.name}",
                requires_grad=False,
            )
            for parameter in optimizer.parameters
        )
        self.addition = _Addition(_SumForward(network, loss), optimizer.parameters, self._gradients, guarded)
        self.application = _Application(Update(optimizer, clip_norm, guarded), self._gradients)

    def add(self, images: Tensor, labels: Tensor, *masks: Tensor) -> np.ndarray:
        """Add a batch.

        Returns:
            The sums of its loss, float64; NaN if a checked gradient is not finite.
        """
        return self.addition(images, labels, *masks).asnumpy().astype(np.float64)

    def apply(self, sums: np.ndarray, learning_rate: float) -> float:
        """Update the parameters, and forget the batches.

        Args:
            sums: The total of what `add` returned.
            learning_rate: The learning rate of the update.

        Returns:
            The loss of all batches before the update; NaN if a checked gradient is not finite.
        """
        numbers = (self.loss.from_sums(sums), self.loss.divisor(sums), learning_rate)
        loss = self.application(*(Tensor(number, ms.float32) for number in numbers))
        return float(loss.asnumpy())

    def forget(self) -> None:
        """Forget the batches that were added since the last update."""
        for gradient in self._gradients:
            gradient.set_data(Tensor(np.zeros(gradient.shape, np.float32)))

    def state(self) -> dict[str, Parameter]:
        """Return what `fcnlab.training.step.trained_state` does."""
        return trained_state(self.addition.forward, self.optimizer)

    def statistics(self) -> dict[str, np.ndarray]:
        """Return what `fcnlab.training.step.moving_statistics` does."""
        return moving_statistics(self.network, self._frozen)

    def set_statistics(self, statistics: dict[str, np.ndarray]) -> None:
        """Set the parameters that `statistics` has copied."""
        set_moving_statistics(self.network, statistics)
