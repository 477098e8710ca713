"""The whole state of a training on disk, from which another process continues as if nothing had happened."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from fcnlab.core import workers
from fcnlab.core.errors import CheckpointError
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.models.checkpoint import read_weights, save_parameters
from fcnlab.models.finite import first_nonfinite
from fcnlab.training.callbacks import EvaluationEvent
from fcnlab.training.evaluation import Evaluation

log = logging.getLogger(__name__)

KEPT = 2
"""The number of states that are kept, so that there is another one if the newest is damaged."""

_NAME = re.compile(r"state_(\d{8,})\.safetensors")
_LOSSES, _CONFUSION, _RANDOM = "state.losses", "state.best_confusion", "state.random"
_OTHERS = "state.random_of_others"


@dataclass
class Progress:
    """How far a training is, and everything else that it knows apart from its parameters.

    The learning rate, the data and the dropout masks are functions of the seed and of these numbers.

    Attributes:
        steps: The number of steps, skipped ones included.
        epochs: The number of epochs that are over, with their evaluations.
        evaluated_at: The number of steps before the last evaluation.
        evaluations_since_best: The number of evaluations since the best one, for early stopping.
        skipped: The number of steps without an update, since their loss was not finite.
        stopped_early: Whether ``trainer.patience``, or a callback, has ended the training.
        losses: The loss of each step.
        best: The best evaluation; one that was read from a state has no samples.
    """

    steps: int = 0
    epochs: int = 0
    evaluated_at: int = 0
    evaluations_since_best: int = 0
    skipped: int = 0
    stopped_early: bool = False
    losses: list[float] = field(default_factory=list)
    best: EvaluationEvent | None = None


_NUMBERS = ("steps", "epochs", "evaluated_at", "evaluations_since_best", "skipped", "stopped_early")


@dataclass(frozen=True)
class TrainingState:
    """The content of a state.

    Attributes:
        path: The file of the state.
        progress: How far the training was.
        arrays: All parameters of the network and the optimizer, by name.
        random: The state of MindSpore's random generator in each worker, W x K; one that has no state here gets that of
            worker 0.
        document: The document that every checkpoint has and, as ``run``, what the callbacks gave.
    """

    path: Path
    progress: Progress
    arrays: Mapping[str, np.ndarray]
    random: np.ndarray
    document: Mapping[str, Any]

    def load_into(self, parameters: Mapping[str, Parameter]) -> None:
        """Set every parameter of a training step.

        Raises:
            CheckpointError: If a parameter is missing, left over, or of another shape or type; nothing is set then.
        """
        for name, parameter in parameters.items():
            array = self.arrays.get(name)
            if array is None or array.shape != parameter.shape or array.dtype != ms.dtype_to_nptype(parameter.dtype):
                found = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
                raise CheckpointError(
                    f"{self.path}: has {found} for {name}, which is {str(parameter.dtype).lower()} of shape "
                    f"{parameter.shape} here: it is of another network or optimizer; init_from=... starts a new "
                    "training from its weights"
                )
        left = sorted(self.arrays.keys() - parameters.keys())
        if left:
            raise CheckpointError(
                f"{self.path}: has {left[0]}, which this network and optimizer do not: it is of another one; "
                "init_from=... starts a new training from its weights"
            )
        for name, parameter in parameters.items():
            parameter.set_data(Tensor(self.arrays[name]))
        rank = workers.current().rank
        ms.set_rng_state(Tensor(self.random[rank if rank < len(self.random) else 0]))


class StateFolder:
    """The states of one training, of which the newest `KEPT` are kept.

    Args:
        folder: The folder of the training's checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Return the files of all states, the newest first; none if there is no such folder."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=_steps, reverse=True)

    def save(
        self,
        progress: Progress,
        parameters: Mapping[str, Parameter],
        document: Mapping[str, Any],
        random_of_others: Sequence[np.ndarray] = (),
    ) -> Path:
        """Write a state and, once it is whole on disk, remove all but the newest `KEPT`.

        Args:
            progress: How far the training is.
            parameters: All parameters of the network and the optimizer, by name.
            document: The document of the state.
            random_of_others: The state of MindSpore's random generator in the workers after this one, the first.

        Raises:
            CheckpointError: If the state cannot be written; no other is removed then.
        """
        best = progress.best
        arrays = {
            _LOSSES: np.array(progress.losses, np.float64),
            _RANDOM: ms.get_rng_state().asnumpy(),
            **({_OTHERS: np.stack(random_of_others)} if len(random_of_others) else {}),
        }
        numbers = {name: getattr(progress, name) for name in _NUMBERS}
        if best is not None:
            arrays[_CONFUSION] = best.evaluation.confusion.counts
            numbers["best"] = {"step": best.step, "epoch": best.epoch, "loss": best.evaluation.loss}
        path = self.folder / f"state_{progress.steps:08d}.safetensors"
        save_parameters(path, parameters, {**document, "progress": numbers}, arrays)
        others = [other for other in self.paths() if other != path]
        ahead = [
            other for other in others if _steps(other) > progress.steps
        ]  # damaged ones, or later ones of a training that was resumed from an earlier state
        behind = [other for other in others if other not in ahead]
        for old in [*ahead, *behind[KEPT - 1 :]]:
            with suppress(OSError):
                old.unlink()
        return path

    def newest(self) -> TrainingState | None:
        """Read the newest state that is whole and finite; a warning names every newer one.

        Raises:
            CheckpointError: If there are states, and none of them is whole and finite.
        """
        paths = self.paths()
        for position, path in enumerate(paths):
            try:
                return read_state(path)
            except CheckpointError as error:
                if position + 1 == len(paths):
                    raise
                log.warning("%s; falling back to %s", error, paths[position + 1].name)
        return None

    def clear_partial(self) -> None:
        """Remove the unfinished files of a killed process; call it only while holding the training's lock."""
        for path in self.folder.glob(".*.partial*"):
            with suppress(OSError):
                path.unlink()


def read_state(path: Path) -> TrainingState:
    """Read a state.

    Raises:
        CheckpointError: If the file is missing or damaged, holds weights alone, or a parameter is not finite.
    """
    arrays, document = read_weights(path)
    try:
        numbers = document["progress"]
        losses, confusion = arrays.pop(_LOSSES), arrays.pop(_CONFUSION, None)
        progress = Progress(**{name: numbers[name] for name in _NUMBERS}, losses=losses.tolist())
        if confusion is not None:
            progress.best = _best(numbers["best"], confusion, document)
        random = [arrays.pop(_RANDOM), *arrays.pop(_OTHERS, ())]
        state = TrainingState(path, progress, arrays, np.stack(random), document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: holds no whole state of a training ({error!r}); init_from=... starts from weights alone"
        ) from error
    name = first_nonfinite(state.arrays)
    if name is not None:
        raise CheckpointError(
            f"{path}: {name} holds NaN or infinity, so that no training can be resumed from it; take an earlier "
            "state, or start a new training"
        )
    return state


def _best(numbers: Mapping[str, Any], counts: np.ndarray, document: Mapping[str, Any]) -> EvaluationEvent:
    confusion = ConfusionMatrix(len(counts), document["ignore_index"])
    confusion.counts += counts
    evaluation = Evaluation(numbers["loss"], confusion, document["class_names"], [])
    return EvaluationEvent(numbers["step"], numbers["epoch"], evaluation, improved=True)


def _steps(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])
