"""The display of a training: a progress bar on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fcnlab.core.progress import clock
from fcnlab.training.callbacks import Callback, EvaluationEvent, Plan, Status, StepEvent
from fcnlab.training.evaluation import Evaluation

log = logging.getLogger(__name__)


_SHOWN = ("val/loss", "val/mean_iou", "val/pixel_accuracy")
"""The metrics that the line of an evaluation has, beside the one that is monitored."""


class ConsoleProgress(Callback):
    """Shows how far a training is.

    Args:
        console: The console; a terminal gets a live bar, anything else a line every few seconds.
        seconds_between_lines: The least time between two plain lines, in seconds.
    """

    def __init__(self, console: Console, seconds_between_lines: float = 10.0) -> None:
        self.console = console
        self.seconds_between_lines = seconds_between_lines
        self.best: EvaluationEvent | None = None
        self.tested: EvaluationEvent | None = None
        self._bar: Progress | None = None

    def on_start(self, plan: Plan) -> None:
        self.plan = plan
        self.best = plan.best
        self._began = self._shown = time.monotonic()
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[step]}  left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            epoch = plan.first_step // plan.steps_per_epoch + 1
            fields = {"epoch": epoch, "epochs": plan.epochs, "step": ""}
            self._task = self._bar.add_task("", total=plan.total_steps, completed=plan.first_step, **fields)
            self._bar.start()

    def on_step(self, event: StepEvent) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=event.step, epoch=event.epoch, step=_of(event))
            return
        now = time.monotonic()
        made = event.step - self.plan.first_step
        if made == 1:  # the first step compiles, so that its time says nothing about the others
            self._began = now
        if now - self._shown >= self.seconds_between_lines or event.step == self.plan.total_steps:
            self._shown = now
            left = (now - self._began) / max(made - 1, 1) * (self.plan.total_steps - event.step)
            log.info(
                "epoch %d/%d  step %d/%d  %s%s",
                event.epoch,
                self.plan.epochs,
                event.step,
                self.plan.total_steps,
                _of(event),
                f"  left {clock(left)}" if made > 1 else "",
            )

    def on_evaluation(self, event: EvaluationEvent) -> None:
        if event.improved:
            self.best = event
        metrics = event.evaluation.metrics
        others = (name for name in _SHOWN if name != self.plan.monitor)
        shown = [*others, self.plan.monitor]  # the monitored one is the last, so that "(best)" stands beside it
        values = "  ".join(f"{name} {metrics[name]:.4f}" for name in shown if name in metrics)  # a class may be absent
        log.info("epoch %d/%d  %s%s", event.epoch, self.plan.epochs, values, "  (best)" if event.improved else "")

    def on_test(self, event: EvaluationEvent) -> None:
        self.tested = event

    def on_end(self, status: Status) -> None:
        if self._bar is not None:
            self._bar.stop()
        if status == "finished" and self.best is not None:
            self.console.print(summary_table(self.best.evaluation, f"Best evaluation, epoch {self.best.epoch}"))
        if status == "finished" and self.tested is not None:
            title = f"Test images, with the weights of epoch {self.tested.epoch}"
            self.console.print(summary_table(self.tested.evaluation, title))


def _of(event: StepEvent) -> str:
    return f"loss {event.loss:.4f}  {event.images_per_second:.1f} images/s"


def summary_table(evaluation: Evaluation, title: str) -> Table:
    """Return a table of each class's IoU and share of the pixels, and below it the paper's four metrics."""
    table = Table("class", "IoU", "pixels", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    pixels = evaluation.confusion.counts.sum(axis=1)
    for name, iou, count in zip(evaluation.class_names, evaluation.confusion.iou, pixels, strict=True):
        table.add_row(escape(name), f"{iou:.4f}", f"{count / max(pixels.sum(), 1):.1%}")
    table.add_section()
    for name, value in evaluation.confusion.summary().items():
        table.add_row(name.replace("_", " "), f"{value:.4f}", "")
    return table
