"""Updates from the gradients of several batches, as if these were one batch, in the memory of one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from fcnlab.training.added_gradients import AddedGradients, require_sum
from fcnlab.training.loss_scaling import LossScale
from fcnlab.training.step import GradientCheck, Update


class _Share(nn.Cell):
    """The share of a batch in the loss of all batches so far, which is differentiated, and the sums of its loss."""

    def __init__(self, network: nn.Cell, loss: nn.Cell, loss_scale: LossScale | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.loss_scale = loss_scale

    def construct(
        self, images: Tensor, labels: Tensor, before: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logits = self.network(images) if masks is None else self.network(images, masks)
        sums = self.loss.sums(logits, labels)
        share = sums[0] / ops.stop_gradient(self.loss.divisor(before + sums))
        if self.loss_scale is not None:
            share = self.loss_scale(share)
        return share, sums


class _Addition(nn.Cell):
    """Add the gradients of a batch to those of earlier ones, and return the sums of its loss.

    With a scaled loss, a third number is returned beside the two sums: 0, which is NaN if a gradient is not finite.

    The gradients so far are those of the loss of all batches so far. Each batch changes what the sums are divided by,
    so that the others' gradients are scaled. All of this is done where the memory of the forward pass is free again.
    """

    def __init__(self, share: _Share, parameters: ParameterTuple, gradients: ParameterTuple, guarded: bool) -> None:
        super().__init__(auto_prefix=False)
        self.share = share
        self.gradients = gradients
        self.check = GradientCheck(parameters, guarded)
        self.value_and_gradients = ms.value_and_grad(share, None, parameters, has_aux=True)
        self.set_train(True)

    def construct(
        self, images: Tensor, labels: Tensor, before: Tensor, kept: Tensor, masks: Tensor | None = None
    ) -> Tensor:
        if masks is None:
            (_, sums), gradients = self.value_and_gradients(images, labels, before)
        else:
            (_, sums), gradients = self.value_and_gradients(images, labels, before, masks)
        loss = self.share.loss
        kept = kept * loss.divisor(before) / loss.divisor(before + sums)
        for index in range(len(self.gradients)):
            gradient = gradients[index]
            if self.share.loss_scale is not None:
                gradient = self.share.loss_scale.unscale(gradient)
            ops.assign(self.gradients[index], self.gradients[index] * kept + gradient)
        if self.share.loss_scale is not None:
            return ops.concat((sums, self.check(gradients).reshape(1)))
        return sums + self.check(gradients)


class _Application(nn.Cell):
    """Update the parameters from the gradients of all batches."""

    def __init__(self, update: Update, gradients: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.gradients = gradients

    def construct(self, loss: Tensor, learning_rate: Tensor) -> Tensor:
        return self.update(loss, self.gradients, learning_rate)


class AccumulatedStep(AddedGradients):
    """Updates a network's parameters on several batches as if they were one, but for what batch norm makes of each.

    The gradient of a mean over the pixels of all batches is not the mean of the batches' gradients, since batches
    differ in their void pixels and in the weights of their classes. So each gradient is that of a *sum* over pixels,
    divided by what the labels of all batches give: see `fcnlab.losses.AccumulatedLoss`.

    In addition to what a `fcnlab.training.step.TrainStep` of one such batch needs, this holds one copy of the
    gradients. It is no part of a training's state, which is saved between updates, when it does not matter.

    Args:
        network: A cell from N x 3 x H x W images to N x C x H x W logits.
        loss: A `fcnlab.losses.AccumulatedLoss`.
        optimizer: A cell that takes the gradients, in the order of its ``parameters``, and the learning rate.
        clip_norm: The largest global norm of the gradient of all batches; None does not clip.
        guarded: Whether to make no update when the loss or any gradient is not finite.
        frozen: The names of the parameters that `fcnlab.training.freezing.freeze` has excluded from training.
        loss_scale: The scale of the loss, if it is scaled; the step must then be guarded.

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
        loss_scale: LossScale | None = None,
    ) -> None:
        require_sum(loss, "trainer.accumulate", "several batches", "one large batch", "trainer.accumulate=1")
        super().__init__(network, loss, optimizer, frozen)
        self.loss_scale = loss_scale
        self.addition = _Addition(_Share(network, loss, loss_scale), optimizer.parameters, self._gradients, guarded)
        self.application = _Application(Update(optimizer, clip_norm, guarded), self._gradients)

    def add(self, images: Tensor, labels: Tensor, before: np.ndarray | None, *masks: Tensor) -> np.ndarray:
        """Add a batch.

        Args:
            images: N x 3 x H x W, float32.
            labels: N x H x W, int32.
            before: The total of what this method returned for the earlier batches; None for the first one.
            masks: The network's dropout masks, if it takes any.

        Returns:
            The two sums of its loss, float64; NaN if a checked gradient is not finite. With a scaled loss, a third
            number tells of the gradients: 0, or NaN if one is not finite.
        """
        sums = self.addition(images, labels, *_history(before), *masks)
        return sums.asnumpy().astype(np.float64)

    def apply(self, sums: np.ndarray, learning_rate: float) -> float:
        """Update the parameters.

        Args:
            sums: The total of what `add` returned.
            learning_rate: The learning rate of the update.

        Returns:
            The loss of all batches before the update; NaN if a checked gradient is not finite.
        """
        loss = self.application(*(Tensor(number, ms.float32) for number in (self.value(sums), learning_rate)))
        return float(loss.asnumpy())

    def value(self, sums: np.ndarray) -> float:
        """Return the loss of all batches, rounded to float32, from the total of what `add` returned."""
        return float(np.float32(self.loss.from_sums(sums[:2])))

    def compile(self, compiler: Callable[..., object], images: Tensor, labels: Tensor, *masks: Tensor) -> None:
        """Compile everything for batches like these."""
        compiler(self.addition, images, labels, *_history(None), *masks)
        compiler(self.application, Tensor(0.0, ms.float32), Tensor(0.0, ms.float32))


def _history(before: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Return the sums of the earlier batches, and which share of their gradients counts: all, or none at the first."""
    sums = np.zeros(2) if before is None else before[:2]
    return Tensor(sums.astype(np.float32)), Tensor(0.0 if before is None else 1.0, ms.float32)
