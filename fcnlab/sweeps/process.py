"""The process of one trial: ``python -m fcnlab.sweeps.process``, with its task on standard input."""

from __future__ import annotations

import json
import logging.config
import math
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import rich

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.core.errors import FcnlabError, TrackingError
from fcnlab.core.files import replacing
from fcnlab.sweeps.trial import RESULT, Task


def main() -> None:
    """Train what standard input says; it stays open as long as somebody waits for the trial.

    Raises:
        SystemExit: With the exit codes of every command.
    """
    configuration.register_schemas()  # the task may hold a plug-in's class
    task: Task = pickle.loads(_read(int.from_bytes(_read(8), "little")))
    threading.Thread(target=_end_when_alone, name="fcnlab-alone", daemon=True).start()
    sys.argv[1:] = task.words
    _set_up_output(task)
    result: dict[str, object] = {}
    try:
        result = _train(task)
    except FcnlabError as error:
        result = {"reason": str(error)}
        sys.exit(command.EXIT_ERROR)  # the job says it
    except MemoryError:
        result = {"reason": command.OUT_OF_MEMORY}
        sys.exit(command.EXIT_ERROR)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # a bug, whose traceback the log has
        logging.getLogger(__name__).exception("trial %d", task.number)
        result = {"reason": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        sys.exit(command.EXIT_ERROR)
    finally:
        if task.folder.is_dir():
            with replacing(task.folder / RESULT) as temporary:
                temporary.write_text(json.dumps(result), encoding="utf-8")


def _train(task: Task) -> dict[str, object]:
    from fcnlab.experiment.run import start_sending_process, train

    start_sending_process(task.config)

    callbacks = []
    if task.config.sweep.search_trial is not None:
        from fcnlab.sweeps.search import Reporter

        callbacks.append(Reporter(task.sweep, task.config.sweep.search_trial, task.config.trainer.monitor))
    done = train(task.config, task.folder, task.overrides, callbacks=callbacks, trial=task.number)
    pruned = any(callback.wants_to_stop for callback in callbacks)
    if pruned:
        _mark_pruned(task)
    value = done.best.evaluation.metrics.get(task.config.trainer.monitor) if done.best else None
    return {"value": value if value is None or math.isfinite(value) else None, "run_id": done.run_id, "pruned": pruned}


def _mark_pruned(task: Task) -> None:
    from fcnlab.recording.tags import PRUNED_TAG
    from fcnlab.tracking.annotation import annotate

    try:
        annotate(task.folder, task.config.tracking, {PRUNED_TAG: "true"})
    except TrackingError as error:
        logging.getLogger(__name__).warning("%s", error)


def _set_up_output(task: Task) -> None:
    """The log of a single training, with the trial's number before each line if others write beside it."""
    settings = task.logging
    if not task.alone:
        rich.reconfigure(force_terminal=False)  # no bar: there would be several
        for formatter in settings.get("formatters", {}).values():
            formatter["format"] = f"[{task.number}] {formatter['format']}"
    Path(task.folder).mkdir(parents=True, exist_ok=True)
    logging.config.dictConfig(settings)


def _read(size: int) -> bytes:
    """Bytes from standard input, past Python's own file, which a thread must not hold when the interpreter ends."""
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part:
            sys.exit(command.EXIT_INTERRUPTED)
        data += part
    return data


def _end_when_alone() -> None:
    """End like after Ctrl-C once nobody waits any more, however that came about; at once if that was said before."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    command.run(main)
