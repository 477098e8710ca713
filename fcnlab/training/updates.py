"""An update of the training loop, from one batch or from several, until it is made or given up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import mindspore as ms
import numpy as np
from mindspore import Tensor

from fcnlab.core import interrupts
from fcnlab.training.accumulation import AccumulatedStep
from fcnlab.training.added_gradients import AddedGradients
from fcnlab.training.dropout import DropoutMasks
from fcnlab.training.step import TrainStep

if TYPE_CHECKING:
    from fcnlab.data.loader import Batch
    from fcnlab.training.evaluation import Compiler


class Outcome(NamedTuple):
    """The outcome of an update.

    Attributes:
        loss: The loss before the update; 0 where all pixels are void. If it is not finite, a guarded step has changed
            nothing.
        names: The names of the images; if the loss is not finite, of the batch at fault.
        overflow: Whether a step with a scaled loss has changed nothing, since the loss or a gradient is not finite.
    """

    loss: float
    names: tuple[str, ...]
    overflow: bool = False


class Updates(Protocol):
    """Makes one update after another: `add` as often as it takes batches, then `finish`."""

    def add(self, batch: Batch, number: int) -> None:
        """Take a batch into the update.

        Args:
            batch: The batch.
            number: The number of the update, from 0, on which its dropout masks depend.
        """

    def finish(self, learning_rate: float) -> Outcome:
        """Make the update. A batch of void pixels alone changes nothing."""

    def abandon(self) -> None:
        """Leave the parameters as they were before the first batch of an update that is not finished."""

    def compile(self, compiler: Compiler, images: tuple[int, int, int, int]) -> None:
        """Compile everything for batches of images of a shape."""


class SingleUpdates:
    """Makes each update from one batch, in one graph.

    Args:
        step: The update of a batch.
        masks: Draws the dropout masks.
        ignore_index: The label of void pixels.
        guarded: Whether the step makes no update where something is not finite.
    """

    def __init__(self, step: TrainStep, masks: DropoutMasks, ignore_index: int, guarded: bool) -> None:
        self._step = step
        self._masks = masks
        self._ignore_index = ignore_index
        self._guarded = guarded

    def add(self, batch: Batch, number: int) -> None:
        self._batch, self._number = batch, number

    def finish(self, learning_rate: float) -> Outcome:
        batch = self._batch
        if is_void(batch.labels, self._ignore_index):
            return Outcome(0.0, batch.names)
        statistics = self._step.statistics() if self._guarded else {}
        masks = self._masks(self._number, batch.images.shape)
        loss = self._step(Tensor(batch.images), Tensor(batch.labels), Tensor(learning_rate, ms.float32), *masks)
        result = loss.asnumpy()
        interrupts.halt_if_exiting()
        is_finite = bool(np.isfinite(result).all())
        if not is_finite:
            self._step.set_statistics(statistics)
        loss_scaled = self._step.loss_scale is not None
        return Outcome(float(result.flat[0]), batch.names, overflow=loss_scaled and not is_finite)

    def abandon(self) -> None:
        pass  # nothing has changed before `finish`

    def compile(self, compiler: Compiler, images: tuple[int, int, int, int]) -> None:
        compiler(self._step, *examples(images), Tensor(0.0, ms.float32), *self._masks(0, images))


class AddedUpdates:
    """What updates have in common that add up the gradients of several batches, or of several workers' shares.

    Args:
        step: The step that adds them up.
        masks: Draws the dropout masks.
        ignore_index: The label of void pixels.
    """

    _step: AddedGradients

    def __init__(self, step: AddedGradients, masks: DropoutMasks, ignore_index: int) -> None:
        self._step = step
        self._masks = masks
        self._ignore_index = ignore_index
        self._begin()

    def _begin(self) -> None:
        """Begin the next update."""
        self._statistics: dict[str, np.ndarray] | None = None
        self._names: tuple[str, ...] = ()
        self._batches = 0
        self._at_fault: Outcome | None = None

    @property
    def _is_scaled(self) -> bool:
        """Whether the loss is scaled."""
        return self._step.loss_scale is not None

    def _count(self, batch: Batch) -> int:
        """Count a batch of the update and its images, and return the batch's number, from 0."""
        self._names += batch.names
        self._batches += 1
        return self._batches - 1

    def _keep_statistics(self) -> None:
        """Keep the moving statistics of before the update, unless they are kept already."""
        if self._statistics is None:
            self._statistics = self._step.statistics()

    def _ended(self, outcome: Outcome) -> Outcome:
        """Begin the next update after an outcome, and undo what a step that was not made has changed."""
        if math.isfinite(outcome.loss) and not outcome.overflow:
            self._begin()
        else:
            self.abandon()
        return outcome

    def abandon(self) -> None:
        """Leave the parameters as they were before the first batch of an update that is not finished."""
        if self._statistics is not None:
            self._step.set_statistics(self._statistics)
            self._step.forget()
        self._begin()


class AccumulatedUpdates(AddedUpdates):
    """Makes each update from several batches, as if these were one.

    If the loss or the gradient of a batch is not finite, there is no update from the others either: that of the large
    batch would not be finite. Where only a gradient of a scaled loss is not, the others still take part in the loss.

    Args:
        step: The update of several batches.
        masks: Draws the dropout masks; each batch of an update gets its own.
        ignore_index: The label of void pixels.
    """

    _step: AccumulatedStep

    def _begin(self) -> None:
        super()._begin()
        self._sums: np.ndarray | None = None

    def add(self, batch: Batch, number: int) -> None:
        part = self._count(batch)
        if self._at_fault is not None or is_void(batch.labels, self._ignore_index):
            return
        self._keep_statistics()
        masks = self._masks(number, batch.images.shape, part)
        sums = self._step.add(Tensor(batch.images), Tensor(batch.labels), self._sums, *masks)
        interrupts.halt_if_exiting()
        if not np.isfinite(sums[:2]).all():
            self._at_fault = Outcome(float(sums[0]), batch.names, overflow=self._is_scaled)
        self._sums = sums if self._sums is None else self._sums + sums

    def finish(self, learning_rate: float) -> Outcome:
        outcome = self._at_fault
        if outcome is None and self._sums is None:
            outcome = Outcome(0.0, self._names)
        elif outcome is None and not np.isfinite(self._sums).all():
            outcome = Outcome(self._step.value(self._sums), self._names, overflow=True)
        elif outcome is None:
            loss = self._step.apply(self._sums, learning_rate)
            interrupts.halt_if_exiting()
            if self._is_scaled and not math.isfinite(loss):  # the sum of finite gradients is not finite
                outcome = Outcome(self._step.value(self._sums), self._names, overflow=True)
            else:
                outcome = Outcome(loss, self._names)
        return self._ended(outcome)

    def compile(self, compiler: Compiler, images: tuple[int, int, int, int]) -> None:
        self._step.compile(compiler, *examples(images), *self._masks(0, images))


def examples(images: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Return images of a shape and their labels, to compile for."""
    batch, _, height, width = images
    return Tensor(np.zeros(images, np.float32)), Tensor(np.zeros((batch, height, width), np.int32))


def is_void(labels: np.ndarray, ignore_index: int) -> bool:
    """Return whether all labels are void."""
    return bool(labels.flat[0] == ignore_index and (labels == ignore_index).all())
