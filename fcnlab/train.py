"""``python -m fcnlab.train``: compose a configuration, train, and record it.

`train` is what the command does, for notebooks, where the module itself can be called:
``fcnlab.train(fcnlab.compose(["arch=fcn8s"]))``.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.core.errors import FcnlabError, first_line
from fcnlab.experiment import reproduce, resume
from fcnlab.experiment.run import import_mlflow_beside, train
from fcnlab.sweeps import manifest

if TYPE_CHECKING:
    from fcnlab.training.trainer import TrainResult

log = logging.getLogger(__name__)

_LAUNCHERS = ("joblib", "ray", "submitit")
"""Packages whose own errors say that a job was lost, as when its process is killed, or that there is no cluster."""


def _main() -> None:
    """Hydra's command line, composing on ``conf/train.yaml`` or on what ``from_run`` or ``resume`` recorded."""
    words = sys.argv[1:]
    if manifest.is_multirun(words):
        _sweep(words)
    else:
        resume.refuse_occupied(words)  # before Hydra writes into it
        _hydra([*words, *resume.output_words(words, reproduce.compose)])


def _sweep(words: Sequence[str]) -> None:
    """Several trainings: Hydra runs them, and this process keeps their parent run.

    Raises:
        SystemExit: If a trial failed.
    """
    from fcnlab.sweeps import search, sweep

    resume.output_words(words, reproduce.compose)  # refuses what goes on with one training
    record, words = manifest.begin(words)
    sweep.current = sweep.Sweep(record)
    search.register()
    try:
        _hydra(words)
    except BaseException as error:
        sweep.current.end(error)
        if type(error).__module__.partition(".")[0] in _LAUNCHERS:
            raise FcnlabError(f"hydra/launcher: {first_line(error)}") from error
        raise
    found = sweep.current.end()
    failed = [outcome for outcome in found if outcome.status not in ("finished", "pruned")]
    if failed:
        reason = next((outcome.reason for outcome in failed if outcome.reason), sweep.NO_WORD)
        command.leave(command.EXIT_ERROR, f"{len(failed)} of {len(found)} trials failed: {reason}")


def _hydra(words: Sequence[str]) -> None:
    """Let Hydra compose and run."""
    sys.argv[1:] = words
    composed = []

    def command_of(node: DictConfig) -> float | None:
        composed.append(node)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            from fcnlab.sweeps import trial  # a launcher may call this in a process of its own

            return trial.run(node)
        return _command(node)

    with reproduce.primary(words) as name:
        try:
            hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name=name)(
                command_of
            )()
        except (ValueError, TypeError, AttributeError, AssertionError) as error:
            if composed:
                raise
            raise configuration.wrong_words(words, error) from error


def _command(node: DictConfig) -> float | None:
    """Returns the monitored metric."""
    try:
        config = configuration.from_node(node)
        reproduce.check(config, HydraConfig.get().job.config_name)
        import_mlflow_beside(config)
        hydra_config = HydraConfig.get()
        result = train(config, Path(hydra_config.runtime.output_dir), hydra_config.overrides.task)
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))
    return result.best.evaluation.metrics.get(config.trainer.monitor) if result.best else None


class _CallableModule(types.ModuleType):
    """`fcnlab.train` is the module that ``python -m`` runs and the function that a notebook calls."""

    def __call__(self, *args: Any, **kwargs: Any) -> TrainResult:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    command.run(_main)
