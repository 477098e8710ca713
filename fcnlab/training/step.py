"""One training step: forward, backward and update, compiled as one graph in graph mode."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from fcnlab.losses.class_weights import is_configured
from fcnlab.training.loss_scaling import LossScale


class _Forward(nn.Cell):
    def __init__(self, network: nn.Cell, loss: nn.Cell, loss_scale: LossScale | None = None) -> None:
        super().__init__(auto_prefix=False)  # the names of parameters are those of checkpoints and stay as they are
        self.network = network
        self.loss = loss
        self.loss_scale = loss_scale

    def construct(self, images: Tensor, labels: Tensor, masks: Tensor | None = None) -> Tensor:
        if masks is None:
            loss = self.loss(self.network(images), labels)
        else:
            loss = self.loss(self.network(images, masks), labels)
        if self.loss_scale is not None:
            loss = self.loss_scale(loss)
        return loss


class GradientCheck(nn.Cell):
    """Tell whether gradients are finite.

    A guarded step checks all gradients, an unguarded one those of the parameters with a single dimension. Biases and
    normalisation have such parameters, and their gradients are sums over all pixels of what flows backward through
    their layers, so that they are not finite where the flow is not. That takes less than 0.1 % of a step. What is not
    finite but does not flow, such as a NaN in the first convolution, is found by looking at the parameters themselves:
    see `fcnlab.training.trainer`.

    Args:
        parameters: The parameters, in the order of the gradients.
        guarded: Whether all gradients are checked.

    Inputs:
        - **gradients** - A tuple of tensors.

    Outputs:
        A scalar: 0, or NaN if a checked gradient is not finite.
    """

    def __init__(self, parameters: Iterable[Parameter], guarded: bool) -> None:
        super().__init__(auto_prefix=False)
        single = [parameter.ndim <= 1 for parameter in parameters]
        self.is_checked = tuple(single) if any(single) and not guarded else (True,) * len(single)

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        small, total = (), 0
        for index in range(len(gradients)):
            if self.is_checked[index]:
                if gradients[index].ndim <= 1:
                    small += (gradients[index].reshape(-1),)
                else:
                    total = total + gradients[index].sum()
        if len(small) > 0:
            total = total + ops.concat(small).sum()  # one sum: thirty single ones take six times as long
        return 0 * total


class Update(nn.Cell):
    """Update parameters from their gradients, unless the step is guarded and something is not finite.

    Args:
        optimizer: As for `TrainStep`, like the other two.
        clip_norm: The largest global norm of the gradients.
        guarded: Whether to make no update when the loss or any gradient is not finite.

    Inputs:
        - **loss** - A scalar, float32.
        - **gradients** - A gradient for each of the optimizer's parameters.
        - **learning_rate** - A scalar, float32.

    Outputs:
        The loss, or NaN if a checked gradient is not finite.
    """

    def __init__(self, optimizer: nn.Cell, clip_norm: float | None, guarded: bool) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.guarded = guarded
        self.check = GradientCheck(optimizer.parameters, guarded)

    def construct(self, loss: Tensor, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> Tensor:
        loss = loss + self.check(gradients)
        if self.clip_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        if self.guarded:
            if ops.isfinite(loss):
                self.optimizer(gradients, learning_rate)
        else:
            self.optimizer(gradients, learning_rate)
        return loss


class ScaledUpdate(nn.Cell):
    """Update parameters from the gradients of a scaled loss, unless something is not finite.

    This is where a step decides that it overflows, from the gradients that the update would be made from. If these are
    the same for all workers of a data-parallel training, then so is the decision.

    Args:
        update: The update, which must be guarded.
        loss_scale: The scale of the loss.

    Inputs:
        - **loss** - The scaled loss, a scalar, float32.
        - **gradients** - A gradient of the scaled loss for each of the optimizer's parameters.
        - **learning_rate** - A scalar, float32.

    Outputs:
        Two numbers, float32: the loss, and 0, which is NaN if the loss or a gradient is not finite.
    """

    def __init__(self, update: Update, loss_scale: LossScale) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.loss_scale = loss_scale

    def construct(self, loss: Tensor, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> Tensor:
        loss = self.loss_scale.unscale(loss)
        unscaled = ()
        for gradient in gradients:
            unscaled += (self.loss_scale.unscale(gradient),)
        return ops.stack((loss, 0 * self.update(loss, unscaled, learning_rate)))


def moving_statistics(network: nn.Cell, frozen: Collection[str]) -> dict[str, np.ndarray]:
    """Return copies of the parameters that a forward pass changes, by name: the moving statistics of batch norm.

    Args:
        network: The network.
        frozen: The names of the parameters that nothing changes.
    """
    return {
        parameter.name: parameter.asnumpy().copy()
        for parameter in network.get_parameters()
        if not parameter.requires_grad and parameter.name not in frozen
    }


def set_moving_statistics(network: nn.Cell, statistics: dict[str, np.ndarray]) -> None:
    """Set the parameters that `moving_statistics` has copied."""
    for parameter in network.get_parameters():
        if parameter.name in statistics:
            parameter.set_data(Tensor(statistics[parameter.name]))


def trained_state(*cells: nn.Cell) -> dict[str, Parameter]:
    """Return all parameters of cells that training changes, by name: weights, moments and moving statistics."""
    found = {name: item for cell in cells for name, item in cell.parameters_dict().items()}
    return {name: item for name, item in found.items() if not is_configured(item)}


class TrainStep(nn.Cell):
    """Update a network's parameters on one batch.

    Args:
        network: A cell from N x 3 x H x W images to N x C x H x W logits.
        loss: A cell from logits and N x H x W labels to a scalar.
        optimizer: A cell that takes the gradients, in the order of its ``parameters``, and the learning rate.
        clip_norm: The largest global norm of the gradients; beyond it they are scaled down together (Pascanu et al.
            2013, algorithm 1). None does not clip.
        guarded: Whether to make no update when the loss or any gradient is not finite.
        frozen: The names of the parameters that `fcnlab.training.freezing.freeze` has excluded from training.
        loss_scale: The scale of the loss, if it is scaled; the step must then be guarded.

    Inputs:
        - **images** - N x 3 x H x W, float32.
        - **labels** - N x H x W, int32.
        - **learning_rate** - A scalar, float32.
        - **masks** - The network's dropout masks, if it takes any.

    Outputs:
        The loss before the update, a scalar. It is NaN if a checked gradient is not finite, even where the loss itself
        is finite: ReLU(NaN) is 0, while NaN spreads backward from one weight to all layers below. `GradientCheck` says
        which gradients are checked. With a scaled loss, it is what `ScaledUpdate` returns.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        optimizer: nn.Cell,
        clip_norm: float | None = None,
        guarded: bool = False,
        frozen: Collection[str] = (),
        loss_scale: LossScale | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.forward = _Forward(network, loss, loss_scale)
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.update = Update(optimizer, clip_norm, guarded)
        if loss_scale is not None:
            self.update = ScaledUpdate(self.update, loss_scale)
        self.frozen = tuple(sorted(frozen))
        self.value_and_gradients = ms.value_and_grad(self.forward, None, optimizer.parameters)
        self.set_train(True)

    @property
    def network(self) -> nn.Cell:
        """The network that is trained."""
        return self.forward.network

    def state(self) -> dict[str, Parameter]:
        """Return what `trained_state` does."""
        return trained_state(self)

    def statistics(self) -> dict[str, np.ndarray]:
        """Return what `moving_statistics` does."""
        return moving_statistics(self.network, self.frozen)

    def set_statistics(self, statistics: dict[str, np.ndarray]) -> None:
        """Set the parameters that `statistics` has copied."""
        set_moving_statistics(self.network, statistics)

    def construct(self, images: Tensor, labels: Tensor, learning_rate: Tensor, masks: Tensor | None = None) -> Tensor:
        if masks is None:
            loss, gradients = self.value_and_gradients(images, labels)
        else:
            loss, gradients = self.value_and_gradients(images, labels, masks)
        return self.update(loss, gradients, learning_rate)
