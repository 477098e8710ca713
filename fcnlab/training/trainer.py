"""The training loop.

A step is one update of the parameters, from one batch or from ``trainer.accumulate`` batches, by one process or by
several workers.

No parameter that is not finite is kept as if it were good. The step detects what is not finite in the loss and in the
gradients that flow backward. What does not flow, as in a layer whose ReLU turns NaN into 0, is found by looking at all
parameters, moments and moving statistics before each evaluation and before each checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np

from fcnlab.core import interrupts
from fcnlab.core.errors import ConfigError, TrainingError
from fcnlab.core.workers import ALONE, WorkerLostError, Workers
from fcnlab.training.accumulation import AccumulatedStep
from fcnlab.training.callbacks import Callback, CallbackList, EvaluationEvent, Plan, Status, StepEvent
from fcnlab.training.checkpoints import Checkpoints
from fcnlab.training.dropout import DropoutMasks
from fcnlab.training.evaluation import Compiler, Evaluation, Evaluator, is_better, metric_names
from fcnlab.training.nonfinite import count_overflow, skip_step
from fcnlab.training.parallel import ParallelStep, ParallelUpdates
from fcnlab.training.result import TrainResult
from fcnlab.training.state import Progress, TrainingState
from fcnlab.training.step import TrainStep
from fcnlab.training.updates import AccumulatedUpdates, Outcome, SingleUpdates, Updates

if TYPE_CHECKING:
    from fcnlab.config.schema import TrainerConfig
    from fcnlab.data.loader import Batch, TrainLoader

log = logging.getLogger(__name__)


class Trainer:
    """Trains a network and keeps its checkpoints.

    Args:
        step: The compiled update, of one batch or of several.
        loader: The training batches, as many for each step as the update takes.
        evaluator: Called every ``eval_every`` epochs and at the end.
        learning_rate: A function from the step, counted from 0, and the total number of steps to the learning rate.
        config: How long to train, and what to keep.
        folder: The folder of the checkpoints.
        metadata: The document of every checkpoint, apart from its epoch, step and metrics.
        callbacks: Callbacks, which hear of every event in this order.
        compiler: Compiles the update for `compile`; None where nothing is compiled.
        test: Evaluates the test images, once at the end with the best weights; None if there are none.
        workers: The workers that train together. All of them take the same decisions; the first one writes.

    Raises:
        ConfigError: If ``trainer.monitor`` is not one of the evaluation's metrics.
    """

    def __init__(
        self,
        step: TrainStep | AccumulatedStep | ParallelStep,
        loader: TrainLoader,
        evaluator: Evaluator,
        learning_rate: Callable[[int, int], float],
        config: TrainerConfig,
        folder: Path,
        metadata: dict[str, Any],
        callbacks: Sequence[Callback] = (),
        compiler: Compiler | None = None,
        test: Callable[[], Evaluation] | None = None,
        workers: Workers = ALONE,
    ) -> None:
        known = metric_names(evaluator.class_names)
        if config.monitor not in known:
            raise ConfigError(f"trainer.monitor={config.monitor}: choose one of {', '.join(known)}")
        self.step = step
        self.loader = loader
        self.evaluator = evaluator
        self.learning_rate = learning_rate
        self.config = config
        self.callbacks = CallbackList(callbacks)
        self.workers = workers
        self.checkpoints = Checkpoints(folder, step, loader.steps_per_epoch, config, metadata, self.callbacks, workers)
        self.updates = self._make_updates(metadata.get("seed", 0))
        self.progress = Progress()
        total_steps = config.max_steps or config.epochs * loader.steps_per_epoch
        self.plan = Plan(
            epochs=math.ceil(total_steps / loader.steps_per_epoch),
            steps_per_epoch=loader.steps_per_epoch,
            total_steps=total_steps,
            batch_size=loader.batch_size,
            monitor=config.monitor,
        )
        self.test = test
        self.tested: EvaluationEvent | None = None
        self._compiler = compiler
        self._in_step = False

    def _make_updates(self, seed: int) -> Updates:
        masks, ignore_index = DropoutMasks(self.step.network, seed), self.evaluator.ignore_index
        if isinstance(self.step, AccumulatedStep):
            return AccumulatedUpdates(self.step, masks, ignore_index)
        if isinstance(self.step, ParallelStep):
            return ParallelUpdates(self.step, masks, ignore_index)
        guarded = self.config.skip_nonfinite > 0 or self.step.loss_scale is not None
        return SingleUpdates(self.step, masks, ignore_index, guarded)

    def fit(self) -> TrainResult:
        """Train to the end.

        Ctrl-C, SIGTERM and SIGHUP save the state before they end the training.

        Raises:
            TrainingError: If the loss or a gradient is not finite, more often than ``trainer.skip_nonfinite`` allows,
                or if a parameter is not finite.
            CheckpointError: If a checkpoint cannot be written.
        """
        status: Status = "failed"
        try:
            self.callbacks.notify("on_start", self.plan)
            self.checkpoints.start()  # only now is it certain that no other process trains in this folder
            ends = interrupts.before_forced_exit(lambda: self.callbacks.end("killed"))
            with ends, self._stopping_together():
                self._compare_workers()
                while not self.done:
                    epoch = self.progress.epochs + 1
                    self._train_epoch(epoch)
                    improved = self._is_evaluation_due(epoch) and self._evaluate(epoch)
                    self.progress.epochs = self.progress.steps // self.plan.steps_per_epoch
                    self.checkpoints.after_epoch(self.progress, epoch, improved)
                self.checkpoints.finish(self.progress)
                self._evaluate_test()
            status = "finished"
        except (KeyboardInterrupt, WorkerLostError) as end:
            status = "killed"
            with interrupts.deferred():
                # Several workers stop where they wait for each other, and nothing is half updated there.
                within_step = self._in_step and self.workers.count == 1
                if not within_step:
                    self.updates.abandon()
                self.checkpoints.save_interrupted(self.progress, within_step)
            if isinstance(end, KeyboardInterrupt):
                self._await_first()
            raise
        finally:
            self.callbacks.end(status)
        return self.result()

    @contextmanager
    def _stopping_together(self) -> Iterator[None]:
        """Let the workers raise a signal after one step or image, at which all know of it, rather than anywhere."""
        with interrupts.deferred() if self.workers.count > 1 else nullcontext():
            yield

    def _compare_workers(self) -> None:
        """Refuse to go on if the workers' parameters are not the same.

        Raises:
            TrainingError: It names the worker.
        """
        if self.workers.count == 1:
            return
        digest = 0
        for _, parameter in sorted(self.step.state().items()):
            digest = zlib.crc32(np.ascontiguousarray(parameter.asnumpy()), digest)
        digests = [message.content for message in self.workers.exchange(digest)]
        self.workers.stop_together()
        others = [rank for rank, found in enumerate(digests) if found != digests[0]]
        if others:
            raise TrainingError(
                f"after step {self.progress.steps}, worker {others[0]} does not have the parameters of worker 0: give "
                "all hosts the same files and versions, and go on from the last state with resume=..."
            )

    def _await_first(self) -> None:
        """Wait until worker 0 has saved the state, since `msrun` kills it when another worker has ended."""
        if self.workers.count > 1:
            with suppress(TrainingError, KeyboardInterrupt), interrupts.saving():
                self.workers.exchange()

    def _train_epoch(self, epoch: int) -> None:
        start_step = self.progress.steps - (epoch - 1) * self.plan.steps_per_epoch
        with closing(self.loader.epoch(epoch - 1, start_step)) as batches:
            self._train_on(batches, epoch, start_step)

    def _train_on(self, batches: Iterator[Batch], epoch: int, start_step: int) -> None:
        progress, plan = self.progress, self.plan
        for _ in range(min(plan.steps_per_epoch - start_step, plan.total_steps - progress.steps)):
            began, waited = time.perf_counter(), 0.0
            for _ in range(self.config.accumulate):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                with self._step_whole():
                    self.updates.add(batch, progress.steps)
            with interrupts.deferred():
                with self._step_whole():
                    learning_rate = self.learning_rate(progress.steps, plan.total_steps)
                    outcome = self.updates.finish(learning_rate)
                    scaling = self._settle(outcome)
                    seconds = time.perf_counter() - began
                    progress.steps += 1
                    progress.losses.append(outcome.loss)
                event = StepEvent(
                    step=progress.steps,
                    epoch=epoch,
                    loss=outcome.loss,
                    learning_rate=learning_rate,
                    images_per_second=self.config.accumulate * self.loader.batch_size / seconds,
                    data_wait_fraction=waited / seconds,
                    **scaling,
                )
                self.callbacks.notify("on_step", event)  # before anything in which a worker may be lost
                self._exchange_random_states()
                self.checkpoints.after_step(progress)
            self.workers.stop_together()

    def _exchange_random_states(self) -> None:
        """Give worker 0 the others' random states, which a state holds."""
        if self.workers.count > 1:
            messages = self.workers.exchange(None, ms.get_rng_state().asnumpy())
            self.checkpoints.random_of_others = [message.arrays[0] for message in messages[1:]]

    def _settle(self, outcome: Outcome) -> dict[str, float]:
        """Count a step that made no update, adapt the scale of the loss, and return what to report of that."""
        progress, loss_scale = self.progress, self.step.loss_scale
        used = None if loss_scale is None else loss_scale.value
        arguments = (outcome.loss, outcome.names, progress, self.config.skip_nonfinite, self.checkpoints.newest_good)
        if outcome.overflow:
            count_overflow(loss_scale, *arguments)
        elif not math.isfinite(outcome.loss):
            skip_step(*arguments)
        elif loss_scale is not None:
            loss_scale.record(overflow=False)
        return {} if loss_scale is None else {"loss_scale": used, "overflows": loss_scale.count}

    @contextmanager
    def _step_whole(self) -> Iterator[None]:
        """Defer interrupts: what changes parameters is done and counted, or none of it."""
        with interrupts.deferred():
            self._in_step = True
            yield
            self._in_step = False

    def _is_evaluation_due(self, epoch: int) -> bool:
        steps = self.progress.steps
        is_time = epoch % self.config.eval_every == 0 or steps == self.plan.total_steps
        return is_time and self.progress.evaluated_at != steps

    def _evaluate(self, epoch: int) -> bool:
        """Evaluate, keep the weights if they are the best so far, and return whether they are."""
        self.checkpoints.refuse_nonfinite(self.progress)
        self._compare_workers()
        evaluation = self.evaluator()
        with interrupts.deferred():
            progress = self.progress
            if not math.isfinite(evaluation.loss):
                log.warning(
                    "val/loss is %s after step %d, though the weights are finite: this evaluation is not counted as "
                    "best",
                    *(evaluation.loss, progress.steps),
                )
            best = progress.best.evaluation if progress.best else None
            improved = is_better(evaluation, best, self.config.monitor)
            event = EvaluationEvent(progress.steps, epoch, evaluation, improved)
            if improved:
                self.checkpoints.save_best(progress, evaluation.metrics)
                progress.best = event
                progress.evaluations_since_best = 0
            else:
                progress.evaluations_since_best += 1
            progress.evaluated_at = progress.steps
            if self.config.patience and progress.evaluations_since_best >= self.config.patience:
                progress.stopped_early = True
            self.callbacks.notify("on_evaluation", event)
            if self.workers.of_first(any(callback.wants_to_stop for callback in self.callbacks)):
                progress.stopped_early = True
        return improved

    def _evaluate_test(self) -> None:
        """Evaluate the test images with the weights that the validation chose.

        This comes last, when everything else is on disk: nothing in a training depends on it, and a training that is
        interrupted here does it when it is resumed.
        """
        best = self.progress.best
        if self.test is None:
            return
        if best is None:
            log.warning("no evaluation counts as best, so that the test images are not evaluated")
            return
        self.workers.exchange()  # worker 0 has written the best weights, which all read
        with self.checkpoints.best_weights(self.progress):
            evaluation = self.test()
        with interrupts.deferred():
            self.tested = EvaluationEvent(best.step, best.epoch, evaluation, improved=False)
            self.callbacks.notify("on_test", self.tested)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train or to evaluate."""
        progress = self.progress
        return progress.stopped_early or self.plan.total_steps == progress.steps == progress.evaluated_at

    def result(self) -> TrainResult:
        """Return what the training has brought so far."""
        return TrainResult(
            steps=self.progress.steps,
            losses=self.progress.losses,
            best=self.progress.best,
            best_checkpoint=self.checkpoints.best,
            last_checkpoint=self.checkpoints.last,
            state=self.checkpoints.state,
            skipped=self.progress.skipped,
            overflows=0 if self.step.loss_scale is None else self.step.loss_scale.count,
            stopped_early=self.progress.stopped_early,
            test=self.tested,
        )

    def restore(self, state: TrainingState) -> None:
        """Continue from a state instead of starting anew; call it before `fit`.

        Raises:
            CheckpointError: If the state belongs to another network or optimizer.
            ConfigError: If the state has more steps than the training shall have.
        """
        steps, total_steps = state.progress.steps, self.plan.total_steps
        if steps > total_steps:
            raise ConfigError(
                f"{state.path}: has {steps} steps behind it, and trainer.epochs and trainer.max_steps allow "
                f"{total_steps}: raise them, or leave them as they were"
            )
        self.checkpoints.restore(state)
        self.progress = state.progress
        self.plan = replace(self.plan, first_step=steps, best=self.progress.best)

    def compile(self, image_shape: tuple[int, int, int]) -> None:
        """Compile the update, which the first step would do otherwise; nothing happens if no step is left to make.

        Args:
            image_shape: The shape of a crop: C, H, W.
        """
        if self._compiler is None or self.done or self.progress.steps == self.plan.total_steps:
            return
        log.info("compiling the training step")
        channels, height, width = image_shape
        self.updates.compile(self._compiler, (self.loader.batch_size, channels, height, width))
