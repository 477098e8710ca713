"""The outcome of a training, and how a terminal and a notebook show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fcnlab.drawing.html_table import html_table
from fcnlab.training.callbacks import EvaluationEvent


@dataclass(repr=False)
class TrainResult:
    """The outcome of a training.

    Attributes:
        steps: The number of steps, skipped ones included.
        losses: The loss of each step.
        best: The best evaluation by ``trainer.monitor``.
        test: The evaluation of the test images with those weights; None if the data set has no test split.
        best_checkpoint: The weights of that evaluation.
        last_checkpoint: The weights at the end.
        state: The newest state of the whole training.
        skipped: The number of steps without an update, since their loss was not finite.
        overflows: The number of further steps without an update, since float16 overflowed: see ``trainer.amp``.
        stopped_early: Whether ``trainer.patience``, or a callback, ended the training.
        run_id: The id of the MLflow run, if there is one.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    best: EvaluationEvent | None = None
    best_checkpoint: Path | None = None
    last_checkpoint: Path | None = None
    state: Path | None = None
    skipped: int = 0
    overflows: int = 0
    stopped_early: bool = False
    run_id: str | None = None
    test: EvaluationEvent | None = None

    def __repr__(self) -> str:
        """Return one line, without the losses and the images."""
        metrics = {} if self.best is None else self.best.evaluation.confusion.summary()
        shown = {
            "steps": self.steps,
            **({"best_epoch": self.best.epoch} if self.best is not None else {}),
            **{name: round(value, 4) for name, value in metrics.items()},
            **{f"test_{name}": round(value, 4) for name, value in self._tested().items()},
            "best_checkpoint": str(self.best_checkpoint or self.last_checkpoint),
            **({"run_id": self.run_id} if self.run_id is not None else {}),
        }
        return f"TrainResult({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def _tested(self) -> dict[str, float]:
        return {} if self.test is None else self.test.evaluation.confusion.summary()

    def _repr_html_(self) -> str:
        if self.best is None:
            return html_table(f"{self.steps} steps without an evaluation", [], [])
        confusion, names = self.best.evaluation.confusion, self.best.evaluation.class_names
        rows = [[name, f"{iou:.4f}"] for name, iou in zip(names, confusion.iou, strict=True)]
        rows += [[name.replace("_", " "), f"{value:.4f}"] for name, value in confusion.summary().items()]
        rows += [[f"test {name.replace('_', ' ')}", f"{value:.4f}"] for name, value in self._tested().items()]
        caption = f"Best evaluation, epoch {self.best.epoch} of {self.steps} steps: {self.best_checkpoint}"
        return html_table(caption, ["class", "IoU"], rows)
