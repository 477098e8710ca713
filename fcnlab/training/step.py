"""One training step: forward, backward and update, compiled as one graph in graph mode."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


class _Forward(nn.Cell):
    def __init__(self, network: nn.Cell, loss: nn.Cell) -> None:
        super().__init__(auto_prefix=False)  # parameter names are the checkpoint's vocabulary and stay as they are
        self.network = network
        self.loss = loss

    def construct(self, images: Tensor, labels: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is None:
            return self.loss(self.network(images), labels)
        return self.loss(self.network(images, keep), labels)


class TrainStep(nn.Cell):
    """Update a network's parameters on one batch.

    Args:
        network: N x 3 x H x W images to N x C x H x W logits.
        loss: Logits and N x H x W labels to a scalar.
        optimizer: Called with the gradients, in the order of its ``parameters``, and the learning rate.
        clip_norm: Largest global norm of the gradients; beyond it they are scaled down together (Pascanu et al. 2013,
            algorithm 1). None: not clipped.
        guarded: Whether to make no update when the loss or a gradient is not finite; the loss is not finite then.

    Calling it with images, labels, the learning rate (scalar tensors) and the network's dropout masks, if it takes any,
    returns the loss before the update.
    """

    def __init__(
        self, network: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, clip_norm: float | None = None, guarded: bool = False
    ) -> None:
        super().__init__(auto_prefix=False)
        self.forward = _Forward(network, loss)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.guarded = guarded
        self.value_and_gradients = ms.value_and_grad(self.forward, None, optimizer.parameters)
        self.set_train(True)

    @property
    def network(self) -> nn.Cell:
        """What is trained."""
        return self.forward.network

    def statistics(self) -> dict[str, np.ndarray]:
        """What a forward pass changes beside the loss, by name: the moving statistics of batch norm."""
        return {
            parameter.name: parameter.asnumpy().copy()
            for parameter in self.network.get_parameters()
            if not parameter.requires_grad
        }

    def set_statistics(self, statistics: dict[str, np.ndarray]) -> None:
        """Put back what `statistics` gave."""
        for parameter in self.network.get_parameters():
            if parameter.name in statistics:
                parameter.set_data(Tensor(statistics[parameter.name]))

    def construct(self, images: Tensor, labels: Tensor, learning_rate: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is None:
            loss, gradients = self.value_and_gradients(images, labels)
        else:
            loss, gradients = self.value_and_gradients(images, labels, keep)
        if self.guarded:
            for gradient in gradients:
                loss = loss + 0 * gradient.sum()  # changes no finite number
        if self.clip_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        if self.guarded:
            if ops.isfinite(loss):
                self.optimizer(gradients, learning_rate)
        else:
            self.optimizer(gradients, learning_rate)
        return loss
