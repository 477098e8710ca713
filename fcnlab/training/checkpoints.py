"""The checkpoints of a training: which ones there are, and when each of them is written."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor

from fcnlab.core import interrupts
from fcnlab.core.errors import CheckpointError, TrainingError
from fcnlab.core.workers import ALONE, Workers
from fcnlab.models.checkpoint import read_weights, save_ckpt, save_weights
from fcnlab.models.finite import first_nonfinite
from fcnlab.training.accumulation import AccumulatedStep
from fcnlab.training.callbacks import CallbackList, CheckpointKind
from fcnlab.training.nonfinite import refuse_nonfinite
from fcnlab.training.parallel import ParallelStep
from fcnlab.training.state import Progress, StateFolder, TrainingState
from fcnlab.training.step import TrainStep

if TYPE_CHECKING:
    from fcnlab.config.schema import TrainerConfig

log = logging.getLogger(__name__)


class Checkpoints:
    """Writes the best and the last weights and the states of a training, and tells the callbacks of each.

    No parameter that is not finite is ever written: all are looked at before each checkpoint.

    Args:
        folder: The folder of the checkpoints.
        step: The update, whose parameters are written.
        steps_per_epoch: The number of steps of an epoch.
        config: The keys ``save_every``, ``checkpoint_epochs``, ``checkpoint_minutes`` and ``ckpt`` are used.
        metadata: The document of every checkpoint, apart from its epoch, step and metrics.
        callbacks: The callbacks of the training.
        workers: The workers that train together, of which the first one writes. All read the same folder.

    Attributes:
        random_of_others: The state of MindSpore's random generator in each worker but the first one.
        best: The weights of the best evaluation.
        last: The weights of the end.
        state: The newest state of the whole training.
    """

    def __init__(
        self,
        folder: Path,
        step: TrainStep | AccumulatedStep | ParallelStep,
        steps_per_epoch: int,
        config: TrainerConfig,
        metadata: Mapping[str, Any],
        callbacks: CallbackList,
        workers: Workers = ALONE,
    ) -> None:
        self.random_of_others: Sequence[np.ndarray] = ()
        self._workers = workers
        self.best: Path | None = None
        self.last: Path | None = None
        self.state: Path | None = None
        self._folder = folder
        self._states = StateFolder(folder)
        self._step = step
        self._steps_per_epoch = steps_per_epoch
        self._config = config
        self._metadata = metadata
        self._callbacks = callbacks
        self._saved_time = time.monotonic()
        self._saved_at = (0, 0)  # steps and evaluated_at of the newest state

    def restore(self, state: TrainingState) -> None:
        """Set every parameter from a state; a best checkpoint that is damaged is forgotten, in the progress as well.

        Raises:
            CheckpointError: If the state belongs to another network or optimizer.
        """
        state.load_into(self._step.state())
        self.state = state.path
        self._saved_at = (state.progress.steps, state.progress.evaluated_at)
        last = self._folder / "last.safetensors"
        self.last = last if last.is_file() else None
        if state.progress.best is not None:
            self._restore_best(state.progress)

    def start(self) -> None:
        """Begin: called once it is certain that no other process trains in this folder."""
        self._saved_time = time.monotonic()
        if self._workers.is_first:
            self._states.clear_partial()
        if self.best is not None:
            self._callbacks.notify("on_checkpoint", "best", self.best)

    def after_step(self, progress: Progress) -> None:
        """Save the state if ``trainer.checkpoint_minutes`` have passed."""
        minutes = self._config.checkpoint_minutes
        if minutes is not None and time.monotonic() - self._saved_time >= 60 * minutes:
            self._save_state(progress)

    def after_epoch(self, progress: Progress, epoch: int, improved: bool) -> None:
        """Save the weights and the state, each where the configuration wants it.

        The state is saved right after a new best as well, so that a resumed training knows the best that is on disk.
        """
        if self._config.save_every and epoch % self._config.save_every == 0:
            self._save_weights("epoch", f"epoch_{epoch:04d}", progress)
        every = self._config.checkpoint_epochs
        if improved or (every and epoch % every == 0):
            self._save_state(progress)

    def save_best(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Save the weights as the best so far."""
        self.best = self._save_weights("best", "best", progress, metrics)

    def finish(self, progress: Progress) -> None:
        """Save the last state, the last weights and, with ``trainer.ckpt``, a ``.ckpt`` of the last and of the best."""
        if self._is_ahead_of_state(progress):
            self._save_state(progress)
        self.last = self._save_weights("last", "last", progress)
        if not self._config.ckpt or not self._workers.is_first:
            return
        last = {name: parameter.asnumpy() for name, parameter in self._step.network.parameters_dict().items()}
        save_ckpt(self.last.with_suffix(".ckpt"), last)
        if self.best is not None:
            best = last if progress.best.step == progress.steps else read_weights(self.best)[0]
            save_ckpt(self.best.with_suffix(".ckpt"), best)

    @contextmanager
    def best_weights(self, progress: Progress) -> Iterator[None]:
        """Give the network the weights of the best evaluation within the block, and those of the end after it.

        Raises:
            CheckpointError: If the best checkpoint cannot be read.
        """
        if progress.best.step == progress.steps:
            yield
            return
        parameters = self._step.network.parameters_dict()
        last = {name: parameter.asnumpy().copy() for name, parameter in parameters.items()}
        best = read_weights(self.best)[0]
        try:
            for name, parameter in parameters.items():
                parameter.set_data(Tensor(best[name]))
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.set_data(Tensor(last[name]))

    def save_interrupted(self, progress: Progress, within_step: bool) -> None:
        """Save the state of a training that is told to end; a problem is logged.

        Args:
            progress: How far the training is.
            within_step: Whether the parameters may be half updated, since the interrupt could not be deferred.
        """
        if within_step:
            log.warning("interrupted within a step: the last state is %s", self.state or "none")
            return
        try:
            if self._is_ahead_of_state(progress):
                with interrupts.saving():
                    self._save_state(progress)
        except CheckpointError as error:
            log.warning("%s; the last state is %s", error, self.state or "none")
        except TrainingError as error:
            log.warning("the state is not saved: %s", error)

    def refuse_nonfinite(self, progress: Progress) -> None:
        """End the training if a parameter is not finite.

        Raises:
            TrainingError: It names the parameter, the step and the newest good checkpoint.
        """
        refuse_nonfinite(self._step.state(), progress.steps, self.newest_good)

    @property
    def newest_good(self) -> Path | None:
        """The newest state or, without one, the best weights."""
        return self.state or self.best

    @property
    def saved_steps(self) -> int | None:
        """The number of steps after which the newest state was saved; None if there is no state."""
        return None if self.state is None else self._saved_at[0]

    def _save_weights(
        self, kind: CheckpointKind, name: str, progress: Progress, metrics: Mapping[str, float] | None = None
    ) -> Path:
        self.refuse_nonfinite(progress)
        path = self._folder / f"{name}.safetensors"
        if not self._workers.is_first:
            return path
        save_weights(path, self._step.network, {**self._document(progress), "metrics": dict(metrics or {})})
        self._callbacks.notify("on_checkpoint", kind, path)
        return path

    def _save_state(self, progress: Progress) -> None:
        if not self._workers.is_first:
            return
        with interrupts.deferred():
            self.refuse_nonfinite(progress)
            document = {**self._document(progress), "run": self._callbacks.before_state()}
            self.state = self._states.save(progress, self._step.state(), document, self.random_of_others)
            self._saved_time, self._saved_at = time.monotonic(), (progress.steps, progress.evaluated_at)
            self._callbacks.notify("on_checkpoint", "state", self.state)

    def _is_ahead_of_state(self, progress: Progress) -> bool:
        saved = self.state is not None and self._saved_at == (progress.steps, progress.evaluated_at)
        return progress.steps > 0 and not saved

    def _document(self, progress: Progress) -> dict[str, Any]:
        epoch = math.ceil(progress.steps / self._steps_per_epoch)
        return {**self._metadata, "epoch": epoch, "step": progress.steps}

    def _restore_best(self, progress: Progress) -> None:
        path = self._folder / "best.safetensors"
        try:
            name = first_nonfinite(read_weights(path)[0])
            if name is not None:
                raise CheckpointError(f"{path}: {name} holds NaN or infinity")
            self.best = path
        except CheckpointError as error:
            log.warning("%s; the next evaluation counts as the best", error)
            progress.best = None
