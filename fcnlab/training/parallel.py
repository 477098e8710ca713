"""Updates of several workers, each from its share of a batch, as if one process had the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from fcnlab.core import interrupts
from fcnlab.core.errors import TrainingError
from fcnlab.core.workers import WorkerLostError, Workers
from fcnlab.models.layers import is_synchronised
from fcnlab.training.added_gradients import AddedGradients, require_sum
from fcnlab.training.loss_scaling import LossScale
from fcnlab.training.step import GradientCheck, ScaledUpdate, Update
from fcnlab.training.updates import AddedUpdates, Outcome, examples, is_void

if TYPE_CHECKING:
    from fcnlab.data.loader import Batch
    from fcnlab.training.evaluation import Compiler

PIECE = 4 * 2**20
"""The largest number of gradients that are exchanged at a time, 16 MiB. Many small gradients are exchanged together,
since each exchange takes a few milliseconds; a large one goes in pieces, since MindSpore's collective on a CPU waits
30 seconds for each."""


def bundles(sizes: Sequence[int], largest: int = PIECE) -> list[list[int]]:
    """Divide tensors, in their order, into bundles that are exchanged together.

    Args:
        sizes: The number of elements of each tensor.
        largest: The number of elements that a bundle has at most, unless it is a single tensor.

    Returns:
        The indices of the tensors in each bundle.
    """
    found: list[list[int]] = []
    total = 0
    for index, size in enumerate(sizes):
        if not found or total + size > largest:
            found.append([])
            total = 0
        found[-1].append(index)
        total += size
    return found


class Sum(nn.Cell):
    """Add up tensors over all workers.

    Args:
        shapes: The shapes of the tensors.

    Inputs:
        - **tensors** - Tensors of these shapes, float32.

    Outputs:
        Tensors of these shapes, float32: the same in all workers, to the bit.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__(auto_prefix=False)
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.sizes = tuple(math.prod(shape) for shape in self.shapes)
        self.bundles = tuple(tuple(bundle) for bundle in bundles(self.sizes))
        self.piece = PIECE
        self.reduce = ops.AllReduce()

    def construct(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        results = ()
        last = None
        for bundle in self.bundles:
            flat = tensors[bundle[0]].reshape(-1)
            if len(bundle) > 1:
                parts = ()
                for index in bundle:
                    parts += (tensors[index].reshape(-1),)
                flat = ops.concat(parts)
            size = 0
            for index in bundle:
                size += self.sizes[index]
            sums = ()
            for begin in range(0, size, self.piece):
                part = flat[begin : min(begin + self.piece, size)]
                if last is not None:
                    part = ops.depend(part, last)  # all workers exchange in one order
                last = self.reduce(part)
                sums += (last,)
            whole = sums[0] if len(sums) == 1 else ops.concat(sums)
            begin = 0
            for index in bundle:
                results += (whole[begin : begin + self.sizes[index]].reshape(self.shapes[index]),)
                begin += self.sizes[index]
        return results


class _Share(nn.Cell):
    """The loss of a worker's share of a batch, divided by the pixels of the whole batch, and the sums of its loss."""

    def __init__(self, network: nn.Cell, loss: nn.Cell, batch_size: int, loss_scale: LossScale | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.batch_size = batch_size
        self.loss_scale = loss_scale

    def construct(self, images: Tensor, labels: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = self.network(images) if masks is None else self.network(images, masks)
        sums = self.loss.sums(logits, labels)
        # The same divisor in all workers: synchronised statistics mix what flows backward in different workers.
        share = sums[0] / (self.batch_size * labels.shape[1] * labels.shape[2])
        if self.loss_scale is not None:
            share = self.loss_scale(share)
        return share, sums


class _Addition(nn.Cell):
    """Add the gradients of a share to those before it, if these count, and return the sums of its loss.

    With a scaled loss, the gradients stay scaled, and a third number is returned beside the two sums: 0, which is NaN
    if a gradient is not finite.
    """

    def __init__(self, share: _Share, parameters: ParameterTuple, gradients: ParameterTuple, guarded: bool) -> None:
        super().__init__(auto_prefix=False)
        self.share = share
        self.gradients = gradients
        self.check = GradientCheck(parameters, guarded)
        self.value_and_gradients = ms.value_and_grad(share, None, parameters, has_aux=True)
        self.set_train(True)

    def construct(self, images: Tensor, labels: Tensor, kept: Tensor, masks: Tensor | None = None) -> Tensor:
        if masks is None:
            (_, sums), gradients = self.value_and_gradients(images, labels)
        else:
            (_, sums), gradients = self.value_and_gradients(images, labels, masks)
        for index in range(len(self.gradients)):
            ops.assign(self.gradients[index], self.gradients[index] * kept + gradients[index])
        if self.share.loss_scale is not None:
            return ops.concat((sums, self.check(gradients).reshape(1)))
        return sums + self.check(gradients)


class _Application(nn.Cell):
    """Add up the gradients of all workers, and update the parameters from the sums.

    The moving statistics of unsynchronised batch norm become the mean of the workers', weighted by their images.

    With a scaled loss, the sums are what is divided by the scale, and what an overflow is found in. They are the same
    in all workers, so that all of them come to the same decision.
    """

    def __init__(
        self,
        update: Update,
        gradients: ParameterTuple,
        statistics: Sequence[Parameter],
        loss_scale: LossScale | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.update = update if loss_scale is None else ScaledUpdate(update, loss_scale)
        self.loss_scale = loss_scale
        self.gradients = gradients
        self.statistics = ParameterTuple(statistics)
        self.sum = Sum([item.shape for item in (*gradients, *statistics)])

    def construct(self, loss: Tensor, learning_rate: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        tensors = ()
        for gradient in self.gradients:
            tensors += (gradient * scale,)
        for statistic in self.statistics:
            tensors += (statistic * weight,)
        sums = self.sum(tensors)
        count = len(self.gradients)
        for index in range(len(self.statistics)):
            ops.assign(self.statistics[index], sums[count + index])
        if self.loss_scale is not None:
            loss = self.loss_scale(loss)
        return self.update(loss, sums[:count], learning_rate)


class ParallelStep(AddedGradients):
    """Updates the parameters of all workers from their shares of one batch, or of several.

    A worker adds up the gradients of the *sum* of its pixels' losses. The sums of all workers, divided by what the
    labels of all of them give, are the gradient of the loss of the whole batch: see `fcnlab.losses.AccumulatedLoss`.
    Every worker gets the same sums to the bit, so that the parameters of all workers stay the same.

    In addition to what a `fcnlab.training.step.TrainStep` needs, this holds two copies of the gradients.

    Args:
        network: A cell from N x 3 x H x W images to N x C x H x W logits.
        loss: A `fcnlab.losses.AccumulatedLoss`.
        optimizer: A cell that takes the gradients, in the order of its ``parameters``, and the learning rate.
        clip_norm: The largest global norm of the gradient of the whole batch; None does not clip.
        guarded: Whether to make no update when the loss or any gradient is not finite.
        frozen: The names of the parameters that `fcnlab.training.freezing.freeze` has excluded from training.
        loss_scale: The scale of the loss, if it is scaled; the step must then be guarded. All workers have the same,
            since each step overflows in all of them or in none.
        batch_size: The number of images of a whole batch.
        workers: The workers that train together.

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
        *,
        batch_size: int,
        workers: Workers,
    ) -> None:
        require_sum(loss, "trainer.parallel=data", "the workers' shares", "the whole batch", "trainer.parallel=none")
        super().__init__(network, loss, optimizer, frozen)
        self.batch_size = batch_size
        self.workers = workers
        self.loss_scale = loss_scale
        share = _Share(network, loss, batch_size, loss_scale)
        self.addition = _Addition(share, optimizer.parameters, self._gradients, guarded)
        statistics = local_statistics(network, frozen)
        self.application = _Application(Update(optimizer, clip_norm, guarded), self._gradients, statistics, loss_scale)

    def add(self, images: Tensor, labels: Tensor, is_first: bool, *masks: Tensor) -> np.ndarray:
        """Add this worker's share of a batch.

        Args:
            images: N x 3 x H x W, float32.
            labels: N x H x W, int32.
            is_first: Whether it is the first batch of an update.
            masks: The dropout masks of the share, if the network takes any.

        Returns:
            The two sums of its loss, float64; NaN if a checked gradient is not finite. With a scaled loss, a third
            number tells of the gradients: 0, or NaN if one is not finite.
        """
        sums = self.addition(images, labels, Tensor(0.0 if is_first else 1.0, ms.float32), *masks)
        return sums.asnumpy().astype(np.float64)

    def apply(self, sums: np.ndarray, learning_rate: float, pixels: int) -> float:
        """Update the parameters; all workers have to call this alike.

        Args:
            sums: The total of what `add` returned in all workers.
            learning_rate: The learning rate of the update.
            pixels: The pixels of a whole batch, void ones included.

        Returns:
            The loss of all batches before the update; NaN if a checked gradient is not finite.
        """
        divisor = float(self.loss.divisor(Tensor(sums[:2], ms.float32)).asnumpy())
        weight = len(self.workers.share(self.batch_size)) / self.batch_size
        numbers = (self.value(sums), learning_rate, pixels / divisor, weight)
        result = self.application(*(Tensor(number, ms.float32) for number in numbers)).asnumpy()
        return float(result if result.ndim == 0 else result.sum())

    def value(self, sums: np.ndarray) -> float:
        """Return the loss of all batches from the total of what `add` returned in all workers."""
        return self.loss.from_sums(sums[:2])

    def compile(self, compiler: Callable[..., object], images: Tensor, labels: Tensor, *masks: Tensor) -> None:
        """Compile everything for shares like these."""
        compiler(self.addition, images, labels, Tensor(0.0, ms.float32), *masks)
        compiler(self.application, *[Tensor(0.0, ms.float32)] * 4)


class ParallelUpdates(AddedUpdates):
    """Makes each update from the workers' shares of one batch, or of several.

    All workers come to the same outcome. If the loss or the gradient of one share is not finite, there is no update.
    Where only a gradient of a scaled loss is not, the outcome has the loss of all shares.

    Args:
        step: The update of all workers.
        masks: Draws the dropout masks of whole batches; a worker takes those of its share.
        ignore_index: The label of void pixels.
    """

    _step: ParallelStep

    def _begin(self) -> None:
        super()._begin()
        self._sums = np.zeros(2 if self._step.loss_scale is None else 3)
        self._added = False

    def add(self, batch: Batch, number: int) -> None:
        """Take this worker's share of a batch into the update; see `fcnlab.training.updates.Updates`."""
        part = self._count(batch)
        self._pixels = self._step.batch_size * batch.labels[0].size
        void = is_void(batch.labels, self._ignore_index)
        # All workers compute a batch, or none does: synchronised statistics are those of all shares. They also begin
        # it together, since MindSpore's collective waits for no worker that is half a minute late.
        if all(message.content for message in self._step.workers.exchange(void)):
            return
        self._keep_statistics()
        masks = self._share_of_masks(number, batch.images.shape, part)
        try:
            sums = self._step.add(Tensor(batch.images), Tensor(batch.labels), not self._added, *masks)
        except RuntimeError as error:
            if not _is_of_exchange(error):
                raise
            raise WorkerLostError(  # no parameter has changed yet, so that the last whole step is saved
                "a worker has ended or is stopped, so that the statistics of arch.norm=sync_batch could not be added up"
            ) from error
        interrupts.halt_if_exiting()
        self._added = True
        if self._at_fault is None and not np.isfinite(sums[:2]).all():
            self._at_fault = Outcome(float(sums[0]), batch.names)
        self._sums += sums

    def finish(self, learning_rate: float) -> Outcome:
        """Make the update in all workers."""
        fault = self._at_fault and [repr(self._at_fault.loss), *self._at_fault.names]
        messages = self._step.workers.exchange([self._added, fault, self._names], self._sums)
        faults = [message.content[1] for message in messages if message.content[1]]
        names = tuple(name for message in messages for name in message.content[2])
        total = sum(message.arrays[0] for message in messages)
        if faults:
            outcome = Outcome(float(faults[0][0]), tuple(faults[0][1:]), overflow=self._is_scaled)
        elif not any(message.content[0] for message in messages):
            outcome = Outcome(0.0, names)
        elif not np.isfinite(total).all():
            outcome = Outcome(self._step.value(total), names, overflow=True)
        else:
            loss = self._apply(total, learning_rate)
            interrupts.halt_if_exiting()
            if self._is_scaled and not math.isfinite(loss):  # the sum of finite gradients is not finite
                outcome = Outcome(self._step.value(total), names, overflow=True)
            else:
                outcome = Outcome(loss, names)
        return self._ended(outcome)

    def _apply(self, sums: np.ndarray, learning_rate: float) -> float:
        try:
            return self._step.apply(sums, learning_rate, self._pixels)
        except RuntimeError as error:
            if not _is_of_exchange(error):
                raise
            raise TrainingError(
                "a worker has ended or is stopped, so that the gradients could not be added up; resume=... goes on "
                "from the last state"
            ) from error

    def compile(self, compiler: Compiler, images: tuple[int, int, int, int]) -> None:
        """Compile everything for this worker's shares of batches of images of a shape."""
        share = (len(self._step.workers.share(images[0])), *images[1:])
        self._step.compile(compiler, *examples(share), *self._share_of_masks(0, share, 0))

    def _share_of_masks(self, number: int, share: tuple[int, ...], part: int) -> tuple[Tensor, ...]:
        """Draw the masks of the whole batch, and return those of this worker's images."""
        whole = self._step.batch_size
        masks = self._masks(number, (whole, *share[1:]), part)
        place = self._step.workers.share(whole)
        # The second axis of what `dropout_masks` draws counts the images.
        return tuple(Tensor(np.ascontiguousarray(mask.asnumpy()[:, place.start : place.stop])) for mask in masks)


def _is_of_exchange(error: RuntimeError) -> bool:
    """Whether a compiled step failed in one of MindSpore's collective operators."""
    return any(name in str(error).lower() for name in ("allreduce", "allgather", "collective"))


def local_statistics(network: nn.Cell, frozen: Collection[str] = ()) -> list[Parameter]:
    """Return the moving statistics that differ between workers, since each normalises by its own share.

    Args:
        network: The network.
        frozen: The names of the parameters that nothing changes.
    """
    local = (
        cell
        for _, cell in network.cells_and_names()
        if isinstance(cell, nn.BatchNorm1d | nn.BatchNorm2d)
        and not is_synchronised(cell)
        and cell.use_batch_statistics is not False
    )
    moving = (parameter for cell in local for parameter in (cell.moving_mean, cell.moving_variance))
    return [parameter for parameter in moving if parameter.name not in frozen]
