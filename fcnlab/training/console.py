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
                TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.1f} images/s  left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            epoch = plan.first_step // plan.steps_per_epoch + 1
            fields = {"epoch": epoch, "epochs": plan.epochs, "loss": float("nan"), "rate": float("nan")}
            self._task = self._bar.add_task("", total=plan.total_steps, completed=plan.first_step, **fields)
            self._bar.start()

    def on_step(self, event: StepEvent) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, completed=event.step, epoch=event.epoch, loss=event.loss, rate=event.images_per_second
            )
            return
        now = time.monotonic()
        made = event.step - self.plan.first_step
        if made == 1:  # the first step compiles, so that its time says nothing about the others
            self._began = now
        if now - self._shown >= self.seconds_between_lines or event.step == self.plan.total_steps:
            self._shown = now
            left = (now - self._began) / max(made - 1, 1) * (self.plan.total_steps - event.step)
            log.info(
                "epoch %d/%d  step %d/%d  loss %.4f  %.1f images/s  left %s",
                event.epoch,
                self.plan.epochs,
                event.step,
                self.plan.total_steps,
                event.loss,
                event.images_per_second,
                clock(left) if made > 1 else "unknown",
            )

    def on_evaluation(self, event: EvaluationEvent) -> None:
        if event.improved:
            self.best = event
        metrics = event.evaluation.metrics
        log.info(
            "epoch %d/%d  val/loss %.4f  val/mean_iou %.4f  val/pixel_accuracy %.4f%s",
            event.epoch,
            self.plan.epochs,
            metrics["val/loss"],
            metrics["val/mean_iou"],
            metrics["val/pixel_accuracy"],
            "  (best)" if event.improved else "",
        )

    def on_end(self, status: Status) -> None:
        if self._bar is not None:
            self._bar.stop()
        if status == "finished" and self.best is not None:
            self.console.print(summary_table(self.best.evaluation, f"Best evaluation, epoch {self.best.epoch}"))


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
