"""``python -m fcnlab.train``: compose a configuration, train, and record it.

A notebook calls the module itself: ``fcnlab.train(fcnlab.compose(["arch=fcn8s"]))``.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.core import launch, owned_folder, supervision, workers
from fcnlab.core.errors import ConfigError, FcnlabError, first_line
from fcnlab.experiment import primary_config, resume, starting
from fcnlab.experiment.run import start_sending_process, train
from fcnlab.experiment.starting import SingleTraining
from fcnlab.sweeps import command_line

if TYPE_CHECKING:
    from fcnlab.config import Config
    from fcnlab.core.launch import Launch
    from fcnlab.training.trainer import TrainResult

_LAUNCHERS = ("joblib", "ray", "submitit")
"""The launchers' packages whose errors say that a job's process was killed, or that there is no cluster."""


def _main() -> None:
    """Run one training, or a sweep."""
    overrides = sys.argv[1:]
    if (started := launch.current()) is not None:
        overrides = _join(started, overrides)
    if command_line.is_multirun(overrides):
        _sweep(overrides)
    else:
        resume.refuse_occupied(overrides)  # before Hydra writes into it
        is_other = started is not None and started.rank != 0
        _hydra(overrides if is_other else [*overrides, *resume.hydra_overrides(overrides)])


def _join(started: Launch, overrides: list[str]) -> list[str]:
    """Become the scheduler or a worker of a data-parallel training, and return the overrides of this worker.

    Raises:
        ConfigError: If the command line asks for several trainings.
    """
    if started.role == "scheduler":
        workers.serve()
        sys.exit(0)
    if command_line.is_multirun(overrides):
        raise ConfigError(
            "-m: msrun starts the workers of one training; start the sweep without msrun and give trainer.workers=..., "
            "with which each trial starts its own workers"
        )
    if started.rank == 0:
        return overrides
    # This worker writes nothing, so it has no folder, no log file and no .hydra of its own.
    folder = owned_folder.make("fcnlab-worker-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return [
        *(word for word in overrides if not word.startswith("hydra.run.dir=")),
        configuration.override("hydra.run.dir", folder),
        "hydra.output_subdir=null",
        "hydra/job_logging=disabled",
    ]


def _sweep(overrides: Sequence[str]) -> None:
    """Let Hydra run several trainings, while this process keeps their parent run.

    Raises:
        SystemExit: If a trial failed.
    """
    from fcnlab.sweeps import sweep, sweepers, verdict

    resume.hydra_overrides(overrides)  # refuses to resume a single training
    manifest, overrides = command_line.begin(overrides)
    sweep.current = sweep.Sweep(manifest)
    sweepers.register()
    try:
        _hydra(verdict.lifted(overrides))
    except BaseException as error:
        sweep.current.end(error)
        if type(error).__module__.partition(".")[0] in _LAUNCHERS:
            raise FcnlabError(f"hydra/launcher: {first_line(error)}") from error
        raise
    found = sweep.current.end()
    failed = [result for result in found if not result.succeeded]
    if failed:
        reason = next((result.reason for result in failed if result.reason), sweep.JOB_LOST)
        command.leave(command.EXIT_ERROR, f"{len(failed)} of {len(found)} trials failed: {reason}")


def _hydra(overrides: Sequence[str]) -> None:
    """Let Hydra compose a configuration, on ``conf/train.yaml`` or on a recorded one, and run what it describes."""
    sys.argv[1:] = overrides
    composed = []

    def command_of(node: DictConfig) -> float | None:
        composed.append(node)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            from fcnlab.sweeps import job  # a launcher may call this in a process of its own

            return job.run(node)
        return _command(node)

    with primary_config.registered(overrides) as name:
        try:
            hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name=name)(
                command_of
            )()
        except (ValueError, TypeError, AttributeError, AssertionError) as error:
            if composed:
                raise
            raise configuration.wrong_override(overrides, error) from error


def _command(node: DictConfig) -> float | None:
    """Train, and return the best value of the monitored metric, which a sweeper optimizes."""
    try:
        hydra_config = HydraConfig.get()
        config = configuration.from_node(
            node, [*hydra_config.overrides.hydra, *hydra_config.overrides.task], hydra_config.job.config_name
        )
        primary_config.check(config, hydra_config.job.config_name)
        if starting.is_needed(config):
            _start_workers(config, hydra_config)
        start_sending_process(config)
        result = train(config, Path(hydra_config.runtime.output_dir), hydra_config.overrides.task)
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))
    except Exception as error:  # before Hydra says more about it
        command.leave_if_out_of_memory(error)
        raise
    return result.best.evaluation.metrics.get(config.trainer.monitor) if result.best else None


def _start_workers(config: Config, hydra_config: DictConfig) -> NoReturn:
    """Let workers train, and end as they do."""
    folder = Path(hydra_config.runtime.output_dir)
    settings = OmegaConf.to_container(hydra_config.job_logging, resolve=True)
    overrides = list(hydra_config.overrides.task)
    end = starting.start(config, folder, SingleTraining(config, folder, overrides, sys.argv[1:], settings))
    if end.reason is not None:
        command.leave(end.code, end.reason)
    sys.exit(end.code)


class _CallableModule(types.ModuleType):
    """The type of this module, which ``python -m`` runs and a notebook calls as a function."""

    def __call__(self, *args: Any, **kwargs: Any) -> TrainResult:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    if (_started := launch.current()) is not None:
        supervision.fork(_started)
    command.run(_main)
