"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindspore as ms
from mindspore import Tensor

from fcnlab.config.schema import TrainerConfig
from fcnlab.errors import ConfigError, TrainingError
from fcnlab.models.weights import save_weights
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationRecord, Plan, Status, StepRecord
from fcnlab.training.evaluation import Evaluator, higher_is_better, metric_names
from fcnlab.training.masks import DropoutMasks
from fcnlab.training.step import TrainStep

if TYPE_CHECKING:
    from fcnlab.data.loader import Batch, TrainLoader


@dataclass
class TrainResult:
    """What a training leaves behind.

    Attributes:
        steps: Updates made.
        losses: Of each step.
        best: The best evaluation by ``trainer.monitor``.
        best_checkpoint: Its weights.
        last_checkpoint: The weights at the end.
        stopped_early: Whether ``trainer.patience`` ended it.
        run_id: Of the MLflow run, if there is one.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    best: EvaluationRecord | None = None
    best_checkpoint: Path | None = None
    last_checkpoint: Path | None = None
    stopped_early: bool = False
    run_id: str | None = None


class Trainer:
    """Trains a network and keeps its checkpoints.

    Args:
        step: The compiled update.
        loader: Training batches.
        evaluator: Called every ``eval_every`` epochs and at the end.
        learning_rate: From the step, counted from 0, and the total number of steps.
        config: How long, and what to keep.
        folder: Where the checkpoints go.
        metadata: What every checkpoint says of itself beside its epoch, step and metrics.
        callbacks: Told what happens, in this order.

    Raises:
        ConfigError: If ``trainer.monitor`` is not one of the evaluation's metrics.
    """

    def __init__(
        self,
        step: TrainStep,
        loader: TrainLoader,
        evaluator: Evaluator,
        learning_rate: Callable[[int, int], float],
        config: TrainerConfig,
        folder: Path,
        metadata: dict[str, Any],
        callbacks: Sequence[Callback] = (),
    ) -> None:
        known = metric_names(evaluator.class_names)
        if config.monitor not in known:
            raise ConfigError(f"trainer.monitor={config.monitor}: choose one of {', '.join(known)}")
        self.step = step
        self.loader = loader
        self.evaluator = evaluator
        self.learning_rate = learning_rate
        self.config = config
        self.folder = folder
        self.metadata = metadata
        self.callbacks = list(callbacks)
        total_steps = config.max_steps or config.epochs * loader.steps_per_epoch
        self.plan = Plan(
            epochs=math.ceil(total_steps / loader.steps_per_epoch),
            steps_per_epoch=loader.steps_per_epoch,
            total_steps=total_steps,
            batch_size=loader.batch_size,
        )
        self.masks = DropoutMasks(step.network, metadata.get("seed", 0))
        self.result = TrainResult()
        self._evaluations_since_best = 0

    def fit(self) -> TrainResult:
        """Train to the end.

        Raises:
            TrainingError: If the loss is not a finite number.
        """
        status: Status = "failed"
        try:
            self._notify("on_start", self.plan)
            for epoch in range(1, self.plan.epochs + 1):
                self._train_epoch(epoch)
                self._finish_epoch(epoch)
                if self.result.stopped_early:
                    break
            status = "finished"
        except KeyboardInterrupt:
            status = "killed"
            raise
        finally:
            self._end(status)
        return self.result

    def _train_epoch(self, epoch: int) -> None:
        began = time.perf_counter()
        for batch in self.loader.epoch(epoch - 1):
            received = time.perf_counter()
            learning_rate = self.learning_rate(self.result.steps, self.plan.total_steps)
            masks = self.masks(self.result.steps, batch.images.shape)
            loss = self.step(Tensor(batch.images), Tensor(batch.labels), Tensor(learning_rate, ms.float32), *masks)
            loss = float(loss.asnumpy())
            ended = time.perf_counter()
            self._check_finite(loss, batch)
            self.result.steps += 1
            self.result.losses.append(loss)
            self._notify(
                "on_step",
                StepRecord(
                    step=self.result.steps,
                    epoch=epoch,
                    loss=loss,
                    learning_rate=learning_rate,
                    images_per_second=len(batch.names) / (ended - began),
                    data_wait_fraction=(received - began) / (ended - began),
                ),
            )
            if self.result.steps == self.plan.total_steps:
                break
            began = time.perf_counter()

    def _finish_epoch(self, epoch: int) -> None:
        last = epoch == self.plan.epochs
        if last or epoch % self.config.eval_every == 0:
            self._evaluate(epoch)
        if self.config.save_every and epoch % self.config.save_every == 0:
            self._save("epoch", f"epoch_{epoch:04d}", epoch)
        self.result.last_checkpoint = self._save("last", "last", epoch)

    def _evaluate(self, epoch: int) -> None:
        evaluation = self.evaluator()
        record = EvaluationRecord(self.result.steps, epoch, evaluation, improved=self._improves(evaluation.metrics))
        if record.improved:
            self.result.best = record
            self.result.best_checkpoint = self._save("best", "best", epoch, evaluation.metrics)
            self._evaluations_since_best = 0
        else:
            self._evaluations_since_best += 1
        self._notify("on_evaluation", record)
        if self.config.patience and self._evaluations_since_best >= self.config.patience:
            self.result.stopped_early = True

    def _improves(self, metrics: dict[str, float]) -> bool:
        monitor = self.config.monitor
        if self.result.best is None:
            return True
        # A class that occurs nowhere has no IoU, which never counts as better.
        value, best = metrics.get(monitor, math.nan), self.result.best.evaluation.metrics.get(monitor, math.nan)
        if math.isnan(best):
            return not math.isnan(value)
        return value > best if higher_is_better(monitor) else value < best

    def _save(self, kind: CheckpointKind, name: str, epoch: int, metrics: dict[str, float] | None = None) -> Path:
        path = self.folder / f"{name}.safetensors"
        metadata = {**self.metadata, "epoch": epoch, "step": self.result.steps, "metrics": metrics or {}}
        save_weights(path, self.step.network, metadata)
        self._notify("on_checkpoint", kind, path)
        return path

    def _check_finite(self, loss: float, batch: Batch) -> None:
        if math.isfinite(loss):
            return
        kept = self.result.best_checkpoint
        raise TrainingError(
            f"loss is {loss} at step {self.result.steps + 1} on {', '.join(dict.fromkeys(batch.names))}: "
            "lower optimizer.lr, add schedule.warmup_steps or set trainer.clip_norm; "
            + (f"the best checkpoint so far is {kept}" if kept else "no checkpoint was written yet")
        )

    def _end(self, status: Status) -> None:
        """Every callback gets to close what it opened, even after one of them has failed."""
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):  # the stack unwinds backwards
                stack.callback(callback.on_end, status)

    def _notify(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)
