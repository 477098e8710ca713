"""What the steps have in common that add up the gradients of several batches, or of several workers' shares."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from fcnlab.core.errors import ConfigError
from fcnlab.losses import AccumulatedLoss
from fcnlab.training.loss_scaling import LossScale
from fcnlab.training.step import moving_statistics, set_moving_statistics, trained_state


class AddedGradients:
    """The parts of a training that adds up gradients, and one copy of the gradients.

    Args:
        network: A cell from N x 3 x H x W images to N x C x H x W logits.
        loss: A `fcnlab.losses.AccumulatedLoss`.
        optimizer: A cell that takes the gradients, in the order of its ``parameters``, and the learning rate.
        frozen: The names of the parameters that `fcnlab.training.freezing.freeze` has excluded from training.

    Attributes:
        addition: The cell that adds the gradients of a batch, whose ``share`` is the cell that is differentiated.
        loss_scale: The scale of the loss; None if it is not scaled.
    """

    addition: nn.Cell
    loss_scale: LossScale | None

    def __init__(self, network: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, frozen: Collection[str]) -> None:
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

    def forget(self) -> None:
        """Forget the gradients that were added, which may not be finite."""
        for gradient in self._gradients:
            gradient.set_data(Tensor(np.zeros(gradient.shape, np.float32)))

    def state(self) -> dict[str, Parameter]:
        """Return what `fcnlab.training.step.trained_state` does."""
        return trained_state(self.addition.share, self.optimizer)

    def statistics(self) -> dict[str, np.ndarray]:
        """Return what `fcnlab.training.step.moving_statistics` does."""
        return moving_statistics(self.network, self._frozen)

    def set_statistics(self, statistics: dict[str, np.ndarray]) -> None:
        """Set the parameters that `statistics` has copied."""
        set_moving_statistics(self.network, statistics)


def require_sum(loss: nn.Cell, key: str, parts: str, whole: str, without: str) -> None:
    """Refuse a loss whose gradients cannot be added up.

    Args:
        loss: The loss.
        key: The key, and perhaps its value, that asks for the addition.
        parts: What has the gradients that would be added up.
        whole: What their sum would have to be the gradient of.
        without: The override that does without the addition.

    Raises:
        ConfigError: If it is no `fcnlab.losses.AccumulatedLoss`.
    """
    if not isinstance(loss, AccumulatedLoss):
        raise ConfigError(
            f"{key}: the gradients of {type(loss).__name__} for {parts} do not add up to that for {whole}, since it is "
            f"no mean or sum over pixels; take loss=cross_entropy or loss=focal, or {without}"
        )
