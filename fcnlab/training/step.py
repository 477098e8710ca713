"""One training step: forward, backward and update, compiled as one graph in graph mode."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from fcnlab.losses.class_weights import is_configured


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
        guarded: Whether to make no update when the loss or any gradient is not finite.

    Calling it with images, labels, the learning rate (scalar tensors) and the network's dropout masks, if it takes any,
    returns the loss before the update. That is not finite, whatever the loss is, if a gradient is not: ReLU(NaN) is 0,
    so that the loss stays a number while NaN spreads backward from one weight to all below it. Guarded, all gradients
    are looked at; else those of the parameters with one dimension. These are sums over all pixels of what flows
    backward through their layers, biases and normalisation, and so are no numbers where that is none. That takes less
    than 0.1 % of a step. What is not finite and does not flow, such as a NaN in the first convolution, is found by
    whoever looks at the parameters themselves: see `fcnlab.training.trainer`.
    """

    def __init__(
        self, network: nn.Cell, loss: nn.Cell, optimizer: nn.Cell, clip_norm: float | None = None, guarded: bool = False
    ) -> None:
        super().__init__(auto_prefix=False)
        self.forward = _Forward(network, loss)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.guarded = guarded
        single = [parameter.ndim <= 1 for parameter in optimizer.parameters]
        self.is_witness = tuple(single) if any(single) and not guarded else (True,) * len(single)
        self.value_and_gradients = ms.value_and_grad(self.forward, None, optimizer.parameters)
        self.set_train(True)

    @property
    def network(self) -> nn.Cell:
        """What is trained."""
        return self.forward.network

    def state(self) -> dict[str, Parameter]:
        """All that changes, by name: weights, moments and moving statistics, but nothing that was configured."""
        return {name: item for name, item in self.parameters_dict().items() if not is_configured(item)}

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
        loss = loss + 0 * self._sum_of_witnesses(gradients)  # changes no finite number
        if self.clip_norm is not None:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        if self.guarded:
            if ops.isfinite(loss):
                self.optimizer(gradients, learning_rate)
        else:
            self.optimizer(gradients, learning_rate)
        return loss

    def _sum_of_witnesses(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """The sum of the gradients that tell whether all are finite."""
        small, total = (), 0
        for index in range(len(gradients)):
            if self.is_witness[index]:
                if gradients[index].ndim <= 1:
                    small += (gradients[index].reshape(-1),)
                else:
                    total = total + gradients[index].sum()
        if len(small) > 0:
            total = total + ops.concat(small).sum()  # at once: thirty operators of their own take six times as long
        return total
