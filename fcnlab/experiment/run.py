"""Trains what a configuration describes, and records it."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import MEDIAN_FREQUENCY, Config
from fcnlab.core import interrupts, workers
from fcnlab.core import launch as launching
from fcnlab.core.credentials import redact
from fcnlab.core.errors import ConfigError
from fcnlab.core.files import shortest
from fcnlab.core.workers import WorkerLostError
from fcnlab.experiment import reproduce, resume
from fcnlab.experiment.primary_config import AUTO
from fcnlab.experiment.resume import ResumePoint
from fcnlab.recording import journal
from fcnlab.recording.tags import WEIGHTS_TAG, WORKERS_TAG
from fcnlab.tracking import sending_client

if TYPE_CHECKING:
    from fcnlab.core.launch import Launch
    from fcnlab.core.workers import Workers
    from fcnlab.models.foreign import Initialisation
    from fcnlab.recording.inputs import Input
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
    """Train what a configuration describes, and record it; the command and a notebook call this.

    Args:
        config: What `fcnlab.compose` returned, or a configuration built by hand.
        folder: Where the checkpoints and the journal go; by default a new folder below ``outputs``. With
            ``config.resume`` it is the folder of the training that is resumed.
        overrides: Hydra's overrides, for the record.
        callbacks: Callbacks that are called after the recorder.
        trial: The number of the trial, if this is one of the sweep ``config.sweep.id``.

    Returns:
        The losses, the best evaluation, the checkpoints and the MLflow run.

    Raises:
        FcnlabError: For everything that the user can mend.
    """
    launch = launching.current()
    workers.check(config.trainer.parallel, config.trainer.workers, launch)
    with command.visible_log(), quiet_unless_first(launch):
        try:
            return _train(config, folder, overrides, callbacks, trial)
        except BaseException as error:
            workers.current().report(error)
            workers.current().outlast_first(error)
            raise


def _train(
    config: Config,
    folder: Path | str | None,
    overrides: Sequence[str],
    callbacks: Sequence[Callback],
    trial: int | None,
) -> TrainResult:
    configuration.validate(config)
    interrupts.limit_end()
    start_sending_process(config)
    # Not at the top: `--help` and a wrong key should not wait for MindSpore.
    from rich import get_console

    from fcnlab.experiment import assembly
    from fcnlab.recording.recorder import Recorder
    from fcnlab.training.console import ConsoleProgress

    group = _prepare_mindspore(config)
    if group.count > 1 and group.is_first and config.tracking.name == "mlflow":
        atexit.register(sending_client.shared().close)  # before the workers' own end, after which nothing runs
    point = _find_resume_point(config, folder)
    folder = _choose_folder(folder, point)
    group.exchange()  # worker 0 opens the journal once all have looked
    source, config = config.resume, replace(config, resume=None)  # `resume` is no part of what is recorded

    with in_turn(group):  # what worker 0 has found good, the others do not check again
        data = assembly.build_data(config)
        test = assembly.build_test(config, data)
    computed = getattr(config.loss, "class_weights", None) == MEDIAN_FREQUENCY
    tags = {WEIGHTS_TAG: MEDIAN_FREQUENCY} if computed else {}
    tags |= {WORKERS_TAG: str(group.count)} if group.count > 1 else {}
    config = assembly.settle_class_weights(config, data)
    inputs = assembly.describe_inputs(config, data, test)
    with in_turn(group):  # nor do they compile the operators again
        network = assembly.build_network(config)
    has_state = point is not None and point.state is not None
    if has_state:
        config, initialisation = point.with_recorded_mean(config), None
    else:
        initialisation = assembly.initialise_network(config, network)
        config = assembly.settle_mean(config, initialisation)
    parameters = sum(parameter.size for parameter in network.trainable_params())
    draw = sending_client.draw if config.tracking.name == "mlflow" else None
    resumed = point is not None
    recorder = Recorder(config, folder, inputs, parameters, overrides, resumed, trial, draw, initialisation, tags)
    watching = [ConsoleProgress(get_console()), recorder, *callbacks] if group.is_first else []
    trainer = assembly.build_trainer(config, network, data, folder, watching, test)
    _compare_with_recorded(config, inputs, initialisation, point)
    if has_state:
        trainer.restore(point.state)
        if trainer.done and journal.is_finished(folder):
            return _finished(trainer, source, folder)

    log.info("%s with %s parameters%s", config.arch.name, f"{parameters:,}", _width(config))
    counts = f"{len(data.train)} training and {len(data.val)} validation images"
    tested = f", {len(test)} test images" if test is not None else ""
    log.info("%s%s, output in %s", counts, tested, shortest(folder))
    size = config.dataset.crop_size
    trainer.compile((config.dataset.channels, size, size))  # before the store is asked: MLflow is imported meanwhile
    result = _fit(trainer, config, folder)
    if trial is None:  # a sweep says it once for all its trials
        _say_what_comes_next(config, folder)
    return result


def start_sending_process(config: Config) -> None:
    """Start the process that sends to MLflow, which imports MLflow while this one imports MindSpore."""
    launch = launching.current()
    if config.tracking.name == "mlflow" and (launch is None or launch.rank == 0):
        sending_client.shared()


def _prepare_mindspore(config: Config) -> Workers:
    """Select the device, and connect the workers, if there are several."""
    import mindspore as ms

    from fcnlab.core import device

    device.configure(config.trainer.device, config.trainer.mode)
    launch = launching.current()
    group = workers.ALONE if launch is None else workers.connect(launch, config.trainer.worker_timeout)
    if config.trainer.batch_size < group.count:
        raise ConfigError(
            f"trainer.batch_size={config.trainer.batch_size}: is the batch of all {group.count} workers, so that some "
            "would have no image; raise it, or start fewer workers"
        )
    ms.set_seed(config.seed)  # for networks of other packages; ours, the data and dropout have generators of their own
    return group


def _find_resume_point(config: Config, folder: Path | str | None) -> ResumePoint | None:
    """Find the training to resume; the other workers take what worker 0 has found."""
    group, found = workers.current(), None
    if config.resume is None:
        return None
    if group.is_first:
        found = resume.find(config, Path(folder) if folder else None)
    place = found and [str(found.folder.absolute()), found.state and str(found.state.path.absolute())]
    place = group.of_first(place)
    return found if group.is_first or place is None else resume.found_elsewhere(Path(place[0]), place[1])


def _choose_folder(folder: Path | str | None, point: ResumePoint | None) -> Path:
    if point is not None:
        return point.folder
    group = workers.current()
    folder = Path(folder) if folder else Path("outputs") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")
    if group.is_first:
        journal.refuse_occupied(folder)
    return folder if group.count == 1 else Path(group.of_first(str(folder.absolute())))


@contextmanager
def quiet_unless_first(launch: Launch | None) -> Iterator[None]:
    """Print and log nothing within the block in any worker but the first, which speaks for all."""
    if launch is None or launch.rank == 0:
        yield
        return
    interrupts.be_silent()
    logging.disable(logging.CRITICAL)
    yield


@contextmanager
def in_turn(group: Workers) -> Iterator[None]:
    """Run the block in worker 0 first, and then in all others."""
    if not group.is_first:
        group.exchange()
    yield
    if group.is_first:
        group.exchange()


def _compare_with_recorded(
    config: Config, inputs: Sequence[Input], initialisation: Initialisation | None, point: ResumePoint | None
) -> None:
    """Refuse to resume a different training; warn of a reproduction with other images or other initial weights."""
    if point is not None:
        point.check(config, inputs)
    elif config.from_run is not None:
        reproduce.compare_inputs(config, inputs)
        reproduce.compare_weights(config, initialisation)
        reproduce.compare_workers(config, workers.current().count)


def _finished(trainer: Trainer, source: str, folder: Path) -> TrainResult:
    if source != AUTO:
        raise ConfigError(
            f"resume={source}: the training in {folder} is finished; raise trainer.epochs or trainer.max_steps to "
            "continue it"
        )
    log.info("%s: is finished already, after step %d", folder, trainer.progress.steps)
    return trainer.result()


def _width(config: Config) -> str:
    """Describe the width of the network for the log; an architecture of another package may have none."""
    width = getattr(config.arch, "width", None)
    return "" if width is None else f", width {width:g}"


def _fit(trainer: Trainer, config: Config, folder: Path) -> TrainResult:
    try:
        with interrupts.knowing_way_on(lambda: _command_to_go_on(trainer, config, folder)):
            return _fit_and_send(trainer, config, folder)
    except KeyboardInterrupt as end:
        end.args = (_way_on(trainer, config, folder),)
        raise
    except WorkerLostError as error:
        raise WorkerLostError(f"{error}: the training ends {_way_on(trainer, config, folder)}") from error


def _way_on(trainer: Trainer, config: Config, folder: Path) -> str:
    """Say where a training was interrupted, what of it is saved, and the command that goes on."""
    made, saved = trainer.progress.steps, trainer.checkpoints.saved_steps
    if saved is None:
        return f"after step {made}, before a state was saved"
    what = "which is saved" if saved == made else f"and the last state is that of step {saved}"
    return f"after step {made}, {what}; to go on: {_command_to_go_on(trainer, config, folder)}"


def _command_to_go_on(trainer: Trainer, config: Config, folder: Path) -> str:
    """Return the command that resumes a training; empty if it has saved no state yet."""
    if trainer.checkpoints.saved_steps is None:
        return ""
    is_by_user = trainer.workers.count > 1 and config.trainer.workers is None  # who started msrun
    started = workers.command(trainer.workers.count) if is_by_user else "python -m fcnlab.train"
    return f"{started} {command.word('resume', shortest(folder))}"


def _fit_and_send(trainer: Trainer, config: Config, folder: Path) -> TrainResult:
    if config.tracking.name != "mlflow" or not workers.current().is_first:
        return trainer.fit()
    from fcnlab.tracking.callback import MLflowCallback

    to_mlflow = MLflowCallback(config, folder)  # it asks the store, once everything else is known to be right
    trainer.callbacks.append(to_mlflow)
    result = trainer.fit()
    result.run_id = to_mlflow.run_id
    to_mlflow.say_where()
    return result


def _say_what_comes_next(config: Config, folder: Path) -> None:
    """Log the commands with which people go on, with the paths of this training in them."""
    checkpoint = command.word("checkpoint", shortest(folder))
    log.info("to label images: python -m fcnlab.predict %s input=... output=...", checkpoint)
    if config.tracking.name == "mlflow":
        store = f" {command.word('tracking.uri', config.tracking.uri)}" if config.tracking.uri else ""
        log.info(
            "to compare it with others: python -m fcnlab.compare %s%s",
            *(command.word("tracking.experiment", config.tracking.experiment), redact(store)),
        )
