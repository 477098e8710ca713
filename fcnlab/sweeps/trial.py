"""What the process of a trial, or each of its workers, does with its task."""

from __future__ import annotations

import copy
import logging
import logging.config
import math
import sys

import rich

from fcnlab import command
from fcnlab.comparison.trials import read_folder
from fcnlab.core import memory
from fcnlab.core.errors import FcnlabError, TrackingError
from fcnlab.experiment import starting
from fcnlab.experiment.run import start_sending_process, train
from fcnlab.sweeps.task import Task

log = logging.getLogger(__name__)


def carry_out(task: Task) -> None:
    """Train a trial, as the only process that does or as one of its workers, and write its result.

    Raises:
        SystemExit: If the trial failed.
        FcnlabError: If a worker other than worker 0 fails, which writes no result.
    """
    first = starting.is_first()
    if first:
        set_up_output(task)
    try:
        _train(task, first)
    except FcnlabError as error:
        if not first:  # worker 0 has heard of it
            raise
        task.result.fail(str(error))
    except Exception as error:
        if not first:
            raise
        if memory.has_run_out(error):
            task.result.fail(command.OUT_OF_MEMORY)
        else:  # a bug, whose traceback belongs into the log
            log.exception("trial %d", task.result.number)
            task.result.fail(" ".join(f"{type(error).__name__}: {error}".split())[:500])
    if first:
        write_result(task)


def write_result(task: Task) -> None:
    """Write the result of a trial.

    Raises:
        SystemExit: If the trial failed.
    """
    task.result.write(task.sweep)
    if not task.result.succeeded:
        sys.exit(command.EXIT_ERROR)  # without a message, since the job says the reason


def set_up_output(task: Task) -> None:
    """Log as a single training does, with the trial's number before each line if others write beside it."""
    settings = copy.deepcopy(task.logging)
    if not task.alone:
        rich.reconfigure(force_terminal=False)  # no progress bar: there would be several
        for formatter in settings.get("formatters", {}).values():
            formatter["format"] = f"[{task.result.number}] {formatter['format']}"
    task.folder.mkdir(parents=True, exist_ok=True)
    logging.config.dictConfig(settings)


def _train(task: Task, first: bool) -> None:
    config, result = task.config, task.result
    start_sending_process(config)
    callbacks = []
    if first and config.sweep.search_trial is not None:
        from fcnlab.sweeps.search import Reporter

        callbacks.append(Reporter(task.sweep, config.sweep.search_trial, config.trainer.monitor))
    done = train(config, task.folder, task.overrides, callbacks=callbacks, trial=result.number)
    if not first:
        return
    result.run_id = done.run_id
    value = done.best.evaluation.metrics.get(config.trainer.monitor) if done.best else None
    result.value = value if value is not None and math.isfinite(value) else None
    result.status, result.seconds = "finished", read_folder(task.folder).seconds
    if any(callback.wants_to_stop for callback in callbacks):
        _mark_pruned(task)
        result.status = "pruned"


def _mark_pruned(task: Task) -> None:
    from fcnlab.recording.tags import PRUNED_TAG
    from fcnlab.tracking.annotation import annotate

    try:
        annotate(task.folder, task.config.tracking, {PRUNED_TAG: "true"})
    except TrackingError as error:
        log.warning("%s", error)
