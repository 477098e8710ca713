"""The process of one trial: ``python -m fcnlab.sweeps.process``, with its task on standard input."""

from __future__ import annotations

import _thread
import logging.config
import math
import os
import signal
import sys
import threading

import rich

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.comparison.trials import read_folder
from fcnlab.core import memory
from fcnlab.core.errors import FcnlabError, TrackingError
from fcnlab.sweeps.task import Task

log = logging.getLogger(__name__)

_STANDARD_INPUT = 0


def main() -> None:
    """Train what standard input says; it stays open as long as the trial's job waits for this process.

    Raises:
        SystemExit: Always, with the exit code that every command would have.
    """
    configuration.register_schemas()  # the task may hold a plug-in's class
    try:
        task = Task.receive(_STANDARD_INPUT)
    except EOFError:
        sys.exit(command.EXIT_INTERRUPTED)
    threading.Thread(target=_interrupt_when_alone, name="fcnlab-alone", daemon=True).start()
    sys.argv[1:] = task.command_line
    _set_up_output(task)
    try:
        _train(task)
    except FcnlabError as error:
        task.result.fail(str(error))
    except Exception as error:
        if memory.has_run_out(error):
            task.result.fail(command.OUT_OF_MEMORY)
        else:  # a bug, whose traceback belongs into the log
            log.exception("trial %d", task.result.number)
            task.result.fail(" ".join(f"{type(error).__name__}: {error}".split())[:500])
    task.result.write(task.sweep)
    if not task.result.succeeded:
        sys.exit(command.EXIT_ERROR)  # without a message, since the job says the reason


def _train(task: Task) -> None:
    from fcnlab.experiment.run import start_sending_process, train

    config, result = task.config, task.result
    start_sending_process(config)
    callbacks = []
    if config.sweep.search_trial is not None:
        from fcnlab.sweeps.search import Reporter

        callbacks.append(Reporter(task.sweep, config.sweep.search_trial, config.trainer.monitor))
    done = train(config, task.folder, task.overrides, callbacks=callbacks, trial=result.number)
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


def _set_up_output(task: Task) -> None:
    """Log as a single training does, with the trial's number before each line if others write beside it."""
    settings = task.logging
    if not task.alone:
        rich.reconfigure(force_terminal=False)  # no progress bar: there would be several
        for formatter in settings.get("formatters", {}).values():
            formatter["format"] = f"[{task.result.number}] {formatter['format']}"
    task.folder.mkdir(parents=True, exist_ok=True)
    logging.config.dictConfig(settings)


def _interrupt_when_alone() -> None:
    """Interrupt this process like Ctrl-C once its job is gone; after an earlier signal, that ends it at once."""
    while os.read(_STANDARD_INPUT, 1):
        pass
    if hasattr(signal, "pthread_sigmask"):
        os.kill(os.getpid(), signal.SIGINT)
    else:  # Windows would end the process at once
        _thread.interrupt_main()


if __name__ == "__main__":
    command.run(main)
