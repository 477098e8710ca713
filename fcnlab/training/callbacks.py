"""What a trainer tells the world, and the protocol to hear it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fcnlab.training.evaluation import Evaluation

Status = Literal["finished", "failed", "killed"]
CheckpointKind = Literal["best", "last", "epoch", "state"]


@dataclass(frozen=True)
class Plan:
    """What is about to happen.

    Attributes:
        first_step: Steps made already, by the process that this one continues.
        best: The best evaluation of those steps.
    """

    epochs: int
    steps_per_epoch: int
    total_steps: int
    batch_size: int
    first_step: int = 0
    best: EvaluationRecord | None = None


@dataclass(frozen=True)
class StepRecord:
    """One training step, counted from 1.

    Attributes:
        epoch: Counted from 1.
        loss: Of the batch, before the update.
        learning_rate: Of the update.
        images_per_second: Crops of the batch over the time from the end of the last step to the end of this one.
        data_wait_fraction: Share of that time spent waiting for the batch.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float
    data_wait_fraction: float


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation, after ``step`` steps and ``epoch`` epochs; ``improved`` says whether it is the best so far."""

    step: int
    epoch: int
    evaluation: Evaluation
    improved: bool


class Callback:
    """Override what you want to hear. An exception from a callback ends the training."""

    wants_to_stop = False
    """Set by a callback that wants the training to end after this evaluation, as ``trainer.patience`` would."""

    def on_start(self, plan: Plan) -> None:
        """Before the first step."""

    def on_step(self, record: StepRecord) -> None:
        """After each step."""

    def on_evaluation(self, record: EvaluationRecord) -> None:
        """After each evaluation."""

    def before_state(self) -> dict[str, Any]:
        """Before the training's state is saved: make what was told so far outlive a crash, as it is not told again.

        Returns:
            What the state is to say of the run, by names of one's own.
        """
        return {}

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        """After a checkpoint is whole on disk."""

    def on_end(self, status: Status) -> None:
        """At the very end, however it came about."""
