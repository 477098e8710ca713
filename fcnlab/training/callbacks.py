"""The events of a training, and the callbacks that hear of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fcnlab.training.evaluation import Evaluation

Status = Literal["finished", "failed", "killed"]
CheckpointKind = Literal["best", "last", "epoch", "state"]


@dataclass(frozen=True)
class Plan:
    """How long a training will be, and where it begins.

    Attributes:
        first_step: The number of steps that the process before this one has made; 0 unless the training is resumed.
        best: The best evaluation of those steps.
        monitor: The metric by which an evaluation is the best, such as ``val/mean_iou``; empty if it is not known.
    """

    epochs: int
    steps_per_epoch: int
    total_steps: int
    batch_size: int
    first_step: int = 0
    best: EvaluationEvent | None = None
    monitor: str = ""


@dataclass(frozen=True)
class StepEvent:
    """One training step.

    Attributes:
        step: The number of the step, from 1.
        epoch: The number of the epoch, from 1.
        loss: The loss of the batch before the update.
        learning_rate: The learning rate of the update.
        images_per_second: The crops of the batch, divided by the time from the end of the last step to the end of this.
        data_wait_fraction: The share of that time that was spent waiting for the batch.
        loss_scale: The factor on the loss in this step, if it is scaled; see ``trainer.amp``.
        overflows: The number of steps so far that made no update since float16 overflowed, if the loss is scaled.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float
    data_wait_fraction: float
    loss_scale: float | None = None
    overflows: int | None = None


@dataclass(frozen=True)
class EvaluationEvent:
    """One evaluation, after ``step`` steps and in epoch ``epoch``; ``improved`` says whether it is the best so far."""

    step: int
    epoch: int
    evaluation: Evaluation
    improved: bool


class Callback:
    """The base class of callbacks: override the methods for the events that you need.

    An exception from a callback ends the training.
    """

    wants_to_stop = False
    """Whether the training shall end after this evaluation, as ``trainer.patience`` would end it."""

    def on_start(self, plan: Plan) -> None:
        """Called before the first step."""

    def on_step(self, event: StepEvent) -> None:
        """Called after each step."""

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Called after each evaluation."""

    def on_test(self, event: EvaluationEvent) -> None:
        """Called once before the end, if the data set has a test split.

        Args:
            event: The evaluation of the test images, with the step and the epoch of the best weights, which it is of.
        """

    def before_state(self) -> dict[str, Any]:
        """Flush everything reported so far; it is not reported again after resuming from the state to be saved.

        Returns:
            What the state shall hold about the run, under names that no other callback uses.
        """
        return {}

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        """Called when a checkpoint is whole on disk."""

    def on_end(self, status: Status) -> None:
        """Called at the very end, whatever the reason."""


class CallbackList(list[Callback]):
    """The callbacks of a training, which hear of every event in this order."""

    def notify(self, event: str, *arguments: Any) -> None:
        """Call the method of this name of every callback."""
        for callback in self:
            getattr(callback, event)(*arguments)

    def before_state(self) -> dict[str, Any]:
        """Call `Callback.before_state` of every callback, and return all that they gave."""
        return {name: value for callback in self for name, value in callback.before_state().items()}

    def end(self, status: Status) -> None:
        """Call `Callback.on_end` of every callback, even after one of them has failed."""
        with ExitStack() as stack:
            for callback in reversed(self):  # the stack unwinds backwards
                stack.callback(callback.on_end, status)
