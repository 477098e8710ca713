"""The training loop.

No NaN and no infinity is kept as if it were good. The step sees what is not finite in the loss and in what flows
backward. What does not flow, as in a layer whose ReLU turns NaN into 0, is found here: all parameters, moments and
moving statistics are looked at before each evaluation and before anything is saved.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from fcnlab.config.schema import TrainerConfig
from fcnlab.core import interrupts
from fcnlab.core.errors import CheckpointError, ConfigError, TrainingError
from fcnlab.metrics.names import higher_is_better
from fcnlab.models.checkpoint import read_weights, save_ckpt, save_weights
from fcnlab.models.finite import first_nonfinite
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationRecord, Plan, Status, StepRecord
from fcnlab.training.evaluation import Compiler, Evaluation, Evaluator, metric_names
from fcnlab.training.masks import DropoutMasks
from fcnlab.training.state import Progress, StateFolder, TrainingState
from fcnlab.training.step import TrainStep

if TYPE_CHECKING:
    from fcnlab.data.loader import Batch, TrainLoader

log = logging.getLogger(__name__)


@dataclass
class TrainResult:
    """What a training leaves behind.

    Attributes:
        steps: Updates made.
        losses: Of each step.
        best: The best evaluation by ``trainer.monitor``.
        best_checkpoint: Its weights.
        last_checkpoint: The weights at the end.
        state: Of the whole training at the end.
        skipped: Steps without an update because their loss was no number.
        stopped_early: Whether ``trainer.patience``, or a callback, ended it.
        run_id: Of the MLflow run, if there is one.
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    best: EvaluationRecord | None = None
    best_checkpoint: Path | None = None
    last_checkpoint: Path | None = None
    state: Path | None = None
    skipped: int = 0
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
        compiler: Compiles the update for `compile`; None where nothing is compiled.

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
        compiler: Compiler | None = None,
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
        self._compiler = compiler
        total_steps = config.max_steps or config.epochs * loader.steps_per_epoch
        self.plan = Plan(
            epochs=math.ceil(total_steps / loader.steps_per_epoch),
            steps_per_epoch=loader.steps_per_epoch,
            total_steps=total_steps,
            batch_size=loader.batch_size,
        )
        self.masks = DropoutMasks(step.network, metadata.get("seed", 0))
        self.states = StateFolder(folder)
        self.progress = Progress()
        self._best_checkpoint: Path | None = None
        self._last_checkpoint: Path | None = None
        self._state: Path | None = None
        self._in_step = False

    def restore(self, state: TrainingState) -> None:
        """Go on from a state, in place of the beginning; before `fit`.

        Raises:
            CheckpointError: If it is of another network or optimizer.
            ConfigError: If it has more steps than are to be made.
        """
        steps, total_steps = state.progress.steps, self.plan.total_steps
        if steps > total_steps:
            raise ConfigError(
                f"{state.path}: has {steps} steps behind it, and trainer.epochs and trainer.max_steps allow "
                f"{total_steps}: raise them, or leave them as they were"
            )
        state.load_into(self.step.state())
        self.progress = state.progress
        self._state = state.path
        if self.progress.best is not None:
            self._restore_best()
        last = self.folder / "last.safetensors"
        self._last_checkpoint = last if last.is_file() else None
        self.plan = replace(self.plan, first_step=steps, best=self.progress.best)

    def compile(self, image_shape: tuple[int, int, int]) -> None:
        """Compile the update before `fit`, whose first step otherwise does it; nothing if there is no step to make.

        Args:
            image_shape: Of a crop: C, H, W.
        """
        if self._compiler is None or self.done or self.progress.steps == self.plan.total_steps:
            return
        log.info("compiling the training step")
        channels, height, width = image_shape
        images = (self.loader.batch_size, channels, height, width)
        labels = (self.loader.batch_size, height, width)
        self._compiler(
            self.step,
            Tensor(np.zeros(images, np.float32)),
            Tensor(np.zeros(labels, np.int32)),
            Tensor(0.0, ms.float32),
            *self.masks(0, images),
        )

    def fit(self) -> TrainResult:
        """Train to the end.

        Ctrl-C and SIGTERM save the state before they end it.

        Raises:
            TrainingError: If the loss or a gradient is not finite, more often than ``trainer.skip_nonfinite`` allows,
                or a parameter is not.
            CheckpointError: If a checkpoint cannot be written.
        """
        status: Status = "failed"
        self._saved = (time.monotonic(), self.progress.steps, self.progress.evaluated_at)
        try:
            self._notify("on_start", self.plan)
            self.states.clear_partial()  # only now is it certain that no other process trains here
            if self._best_checkpoint is not None:
                self._notify("on_checkpoint", "best", self._best_checkpoint)
            with interrupts.before_forced_exit(lambda: self._end("killed")):
                while not self.done:
                    epoch = self.progress.epochs + 1
                    self._train_epoch(epoch)
                    self._finish_epoch(epoch)
                self._finish()
            status = "finished"
        except KeyboardInterrupt:
            status = "killed"
            with interrupts.deferred():
                self._save_interrupted()
            raise
        finally:
            self._end(status)
        return self.result()

    def result(self) -> TrainResult:
        """What there is by now."""
        return TrainResult(
            steps=self.progress.steps,
            losses=self.progress.losses,
            best=self.progress.best,
            best_checkpoint=self._best_checkpoint,
            last_checkpoint=self._last_checkpoint,
            state=self._state,
            skipped=self.progress.skipped,
            stopped_early=self.progress.stopped_early,
        )

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train or to evaluate."""
        progress = self.progress
        return progress.stopped_early or self.plan.total_steps == progress.steps == progress.evaluated_at

    def _train_epoch(self, epoch: int) -> None:
        start_step = self.progress.steps - (epoch - 1) * self.plan.steps_per_epoch
        if self.progress.steps == self.plan.total_steps:
            return
        began = time.perf_counter()
        for batch in self.loader.epoch(epoch - 1, start_step):
            received = time.perf_counter()
            with interrupts.deferred():  # an update is made, counted and told, or none of these
                self._in_step = True
                learning_rate = self.learning_rate(self.progress.steps, self.plan.total_steps)
                loss = self._update(batch, learning_rate)
                ended = time.perf_counter()
                self.progress.steps += 1
                self.progress.losses.append(loss)
                self._in_step = False
                self._notify(
                    "on_step",
                    StepRecord(
                        step=self.progress.steps,
                        epoch=epoch,
                        loss=loss,
                        learning_rate=learning_rate,
                        images_per_second=len(batch.names) / (ended - began),
                        data_wait_fraction=(received - began) / (ended - began),
                    ),
                )
                if self._is_time_to_save():
                    self._save_state()
            if self.progress.steps == self.plan.total_steps:
                break
            began = time.perf_counter()

    def _update(self, batch: Batch, learning_rate: float) -> float:
        """Make one step; a batch without a pixel that counts changes nothing and has a loss of 0."""
        if _is_void(batch.labels, self.evaluator.ignore_index):
            return 0.0
        statistics = self.step.statistics() if self.config.skip_nonfinite else {}
        masks = self.masks(self.progress.steps, batch.images.shape)
        loss = self.step(Tensor(batch.images), Tensor(batch.labels), Tensor(learning_rate, ms.float32), *masks)
        loss = float(loss.asnumpy())
        interrupts.halt_if_exiting()
        if not math.isfinite(loss):
            self._skip(loss, batch)
            self.step.set_statistics(statistics)
        return loss

    def _finish_epoch(self, epoch: int) -> None:
        progress, last = self.progress, self.progress.steps == self.plan.total_steps
        improved = False
        if (last or epoch % self.config.eval_every == 0) and progress.evaluated_at != progress.steps:
            improved = self._evaluate(epoch)
        progress.epochs = progress.steps // self.plan.steps_per_epoch
        if self.config.save_every and epoch % self.config.save_every == 0:
            self._save_weights("epoch", f"epoch_{epoch:04d}", epoch)
        every = self.config.checkpoint_epochs
        # Right after a new best, so that what is on disk as the best is what a training that goes on believes in.
        if improved or (every and epoch % every == 0):
            self._save_state()

    def _finish(self) -> None:
        epoch = math.ceil(self.progress.steps / self.plan.steps_per_epoch)
        if self._is_ahead_of_state():
            self._save_state()
        self._last_checkpoint = self._save_weights("last", "last", epoch)
        if self.config.ckpt:
            self._save_ckpts()

    def _save_ckpts(self) -> None:
        last = {name: parameter.asnumpy() for name, parameter in self.step.network.parameters_dict().items()}
        save_ckpt(self._last_checkpoint.with_suffix(".ckpt"), last)
        if self._best_checkpoint is not None:
            is_last = self.progress.best.step == self.progress.steps
            best = last if is_last else read_weights(self._best_checkpoint)[0]
            save_ckpt(self._best_checkpoint.with_suffix(".ckpt"), best)

    def _evaluate(self, epoch: int) -> bool:
        self._refuse_nonfinite()
        evaluation = self.evaluator()
        with interrupts.deferred():
            progress = self.progress
            record = EvaluationRecord(progress.steps, epoch, evaluation, improved=self._improves(evaluation))
            if record.improved:
                self._best_checkpoint = self._save_weights("best", "best", epoch, evaluation.metrics)
                progress.best = record
                progress.evaluations_since_best = 0
            else:
                progress.evaluations_since_best += 1
            progress.evaluated_at = progress.steps
            if self.config.patience and progress.evaluations_since_best >= self.config.patience:
                progress.stopped_early = True
            self._notify("on_evaluation", record)
            if any(callback.wants_to_stop for callback in self.callbacks):
                progress.stopped_early = True
        return record.improved

    def _improves(self, evaluation: Evaluation) -> bool:
        monitor, metrics = self.config.monitor, evaluation.metrics
        if not math.isfinite(evaluation.loss):
            log.warning(
                "val/loss is %s after step %d, though the weights are finite: this evaluation is not counted as best",
                *(evaluation.loss, self.progress.steps),
            )
            return False
        if self.progress.best is None:
            return True
        # A class that occurs nowhere has no IoU, which never counts as better.
        value, best = metrics.get(monitor, math.nan), self.progress.best.evaluation.metrics.get(monitor, math.nan)
        if math.isnan(best):
            return not math.isnan(value)
        return value > best if higher_is_better(monitor) else value < best

    def _save_weights(
        self, kind: CheckpointKind, name: str, epoch: int, metrics: dict[str, float] | None = None
    ) -> Path:
        self._refuse_nonfinite()
        path = self.folder / f"{name}.safetensors"
        save_weights(path, self.step.network, {**self._document(epoch), "metrics": metrics or {}})
        self._notify("on_checkpoint", kind, path)
        return path

    def _save_state(self) -> None:
        with interrupts.deferred():
            self._refuse_nonfinite()
            document = self._document(math.ceil(self.progress.steps / self.plan.steps_per_epoch))
            run: dict[str, Any] = {}
            for callback in self.callbacks:
                run |= callback.before_state()
            self._state = self.states.save(self.progress, self.step.state(), {**document, "run": run})
            self._saved = (time.monotonic(), self.progress.steps, self.progress.evaluated_at)
            self._notify("on_checkpoint", "state", self._state)

    def _save_interrupted(self) -> None:
        """What a training that is told to end leaves for the one that goes on."""
        if self._in_step:  # only where interrupts cannot be deferred: the parameters may be half updated
            log.warning("interrupted within a step: the last state is %s", self._state or "none")
            return
        try:
            if self._is_ahead_of_state():
                self._save_state()
        except CheckpointError as error:
            log.warning("%s; the last state is %s", error, self._state or "none")
        except TrainingError as error:
            log.warning("the state is not saved: %s", error)

    def _is_ahead_of_state(self) -> bool:
        _, steps, evaluated_at = self._saved
        saved = self._state is not None and (steps, evaluated_at) == (self.progress.steps, self.progress.evaluated_at)
        return self.progress.steps > 0 and not saved

    def _is_time_to_save(self) -> bool:
        minutes = self.config.checkpoint_minutes
        return minutes is not None and time.monotonic() - self._saved[0] >= 60 * minutes

    def _document(self, epoch: int) -> dict[str, Any]:
        return {**self.metadata, "epoch": epoch, "step": self.progress.steps}

    def _restore_best(self) -> None:
        path = self.folder / "best.safetensors"
        try:
            name = first_nonfinite(read_weights(path)[0])
            if name is not None:
                raise CheckpointError(f"{path}: {name} holds NaN or infinity")
            self._best_checkpoint = path
        except CheckpointError as error:
            log.warning("%s; the next evaluation counts as the best", error)
            self.progress.best = None

    def _skip(self, loss: float, batch: Batch) -> None:
        """Let a loss or a gradient that is no number pass, or end the training."""
        limit = self.config.skip_nonfinite
        what = "the loss" if math.isinf(loss) else "the loss or a gradient"  # a gradient turns the loss into NaN alone
        where = f"{what} is {loss} at step {self.progress.steps + 1} on {', '.join(dict.fromkeys(batch.names))}"
        if self.progress.skipped < limit:
            self.progress.skipped += 1
            log.warning("%s: batch skipped (%d of at most %d)", where, self.progress.skipped, limit)
            return
        raise self._diverged(f"{where}{f', after {limit} skipped ones' if limit else ''}")

    def _refuse_nonfinite(self) -> None:
        """End the training if a weight, a moment or a moving statistic is no number; no later step would mend it."""
        name = first_nonfinite(self.step.state())
        if name is not None:
            raise self._diverged(f"{name} holds NaN or infinity after step {self.progress.steps}")

    def _diverged(self, what: str) -> TrainingError:
        kept = self._state or self._best_checkpoint
        return TrainingError(
            f"{what}: lower optimizer.lr, add schedule.warmup_steps or set trainer.clip_norm; "
            + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was written yet")
        )

    def _end(self, status: Status) -> None:
        """Every callback gets to close what it opened, even after one of them has failed."""
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):  # the stack unwinds backwards
                stack.callback(callback.on_end, status)

    def _notify(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)


def _is_void(labels: np.ndarray, ignore_index: int) -> bool:
    return labels.flat[0] == ignore_index and bool((labels == ignore_index).all())
