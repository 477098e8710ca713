"""Trains what a configuration describes, and records it: what the command does, for notebooks as well."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.core.errors import ConfigError
from fcnlab.experiment import reproduce, resume
from fcnlab.recording import journal
from fcnlab.tracking import sending_client

if TYPE_CHECKING:
    from fcnlab.training.callbacks import Callback
    from fcnlab.training.trainer import Trainer, TrainResult

log = logging.getLogger(__name__)


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

    from fcnlab.core import device
    from fcnlab.experiment import assembly
    from fcnlab.recording.recorder import Recorder
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
    draw = sending_client.draw if config.tracking.name == "mlflow" else None
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
        from fcnlab.tracking.callback import MLflowCallback

        upload = MLflowCallback(config, folder)  # asks the store: not before everything else is known to be right
        trainer.callbacks.append(upload)
    result = trainer.fit()
    result.run_id = upload.run_id if upload else None
    return result


def import_mlflow_beside(config: Config) -> None:
    """Start the process that sends to MLflow, so that it is ready when MindSpore is imported and the network made."""
    if config.tracking.name == "mlflow":
        sending_client.shared()


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
