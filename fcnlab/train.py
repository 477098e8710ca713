"""``python -m fcnlab.train``: compose a configuration, train, and record it.

`train` is what the command does, for notebooks, where the module itself can be called:
``fcnlab.train(fcnlab.compose(["arch=fcn8s"]))``.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fcnlab import command, reproduce, resume
from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.errors import ConfigError, FcnlabError, first_line
from fcnlab.sweeps import record as sweep_record
from fcnlab.tracking import journal, upload_process

if TYPE_CHECKING:
    from fcnlab.training.callbacks import Callback
    from fcnlab.training.trainer import Trainer, TrainResult

log = logging.getLogger(__name__)

_LAUNCHERS = ("joblib", "ray", "submitit")
"""Packages whose own errors say that a job was lost, as when its process is killed, or that there is no cluster."""


def train(
    config: Config,
    folder: Path | str | None = None,
    overrides: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    trial: int | None = None,
) -> TrainResult:
    """Train what a configuration describes.

    Args:
        config: From `fcnlab.compose`, or built by hand.
        folder: Where the checkpoints and the journal go; by default a new folder below ``outputs``. With
            ``config.resume`` it is the one that is gone on with.
        overrides: What Hydra was told to change, for the record.
        callbacks: Told what happens, after the recorder.
        trial: Its number, if it is a trial of the sweep ``config.sweep.id``.

    Returns:
        The losses, the best evaluation, the checkpoints and the MLflow run.

    Raises:
        FcnlabError: For everything that the user can mend.
    """
    configuration.validate(config)
    import_mlflow_beside(config)
    # Not at the top: `--help` and a wrong key should not wait for MindSpore and MLflow.
    import mindspore as ms
    from rich import get_console

    from fcnlab import assembly, device
    from fcnlab.tracking.recorder import Recorder
    from fcnlab.training.console import ConsoleProgress

    device.configure(config.trainer.device, config.trainer.mode)
    ms.set_seed(config.seed)  # for networks of other packages; ours, the data and dropout have generators of their own
    interrupted = resume.find(config, Path(folder) if folder else None) if config.resume is not None else None
    wanted, config = config.resume, replace(config, resume=None)  # how it came to be is no part of what is recorded
    if interrupted is not None:
        folder = interrupted.folder
    folder = Path(folder) if folder else Path("outputs") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    if interrupted is None:
        journal.refuse_occupied(folder)
    data = assembly.build_data(config)
    config = assembly.settle_class_weights(config, data)
    network = assembly.build_network(config)
    inputs = assembly.describe_inputs(config, data)
    parameters = sum(parameter.size for parameter in network.trainable_params())
    draw = upload_process.draw if config.tracking.name == "mlflow" else None
    recorder = Recorder(config, folder, inputs, parameters, overrides, interrupted is not None, trial, draw)
    trainer = assembly.build_trainer(
        config, network, data, folder, [ConsoleProgress(get_console()), recorder, *callbacks]
    )
    if interrupted is not None:
        interrupted.check(config, inputs)
        if interrupted.state is not None:
            trainer.restore(interrupted.state)
            if trainer.done and journal.is_finished(folder):
                return _finished(trainer, wanted, folder)
    elif config.from_run is not None:
        reproduce.compare_inputs(config, inputs)
    log.info("%s with %s parameters%s", config.arch.name, f"{parameters:,}", _width(config))
    log.info("%d training and %d validation images, output in %s", len(data.train), len(data.val), folder)
    size = config.dataset.crop_size
    trainer.compile((config.dataset.channels, size, size))  # before the store is asked: MLflow is imported meanwhile
    upload = None
    if config.tracking.name == "mlflow":
        from fcnlab.tracking.upload import MLflowUpload

        upload = MLflowUpload(config, folder)  # asks the store: not before everything else is known to be right
        trainer.callbacks.append(upload)
    result = trainer.fit()
    result.run_id = upload.run_id if upload else None
    return result


def import_mlflow_beside(config: Config) -> None:
    """Start the process that sends to MLflow, so that it is ready when MindSpore is imported and the network made."""
    if config.tracking.name == "mlflow":
        upload_process.shared()


def _width(config: Config) -> str:
    """For the log; an architecture of another package may have none."""
    width = getattr(config.arch, "width", None)
    return "" if width is None else f", width {width:g}"


def _finished(trainer: Trainer, wanted: str, folder: Path) -> TrainResult:
    if wanted != resume.AUTO:
        raise ConfigError(
            f"resume={wanted}: the training in {folder} is finished; raise trainer.epochs or trainer.max_steps to go on"
        )
    log.info("%s: is finished already, after step %d", folder, trainer.progress.steps)
    return trainer.result()


def _main() -> None:
    """Hydra's command line, composing on ``conf/train.yaml`` or on what ``from_run`` or ``resume`` recorded."""
    words = sys.argv[1:]
    if sweep_record.is_multirun(words):
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
    record, words = sweep_record.begin(words)
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
