"""The process of one trial: ``python -m fcnlab.sweeps.process``, with its task on standard input.

It trains by itself, or starts the workers that ``trainer.workers`` asks for and gives each of them the task.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from functools import partial

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.core.errors import FcnlabError
from fcnlab.experiment import starting
from fcnlab.sweeps import result as results
from fcnlab.sweeps.task import Task

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
    from fcnlab.sweeps import trial  # not at the top: it imports numpy, which starts threads

    if starting.is_needed(task.config):
        _start_workers(task)
    else:
        trial.carry_out(task)


def _start_workers(task: Task) -> None:
    """Let workers train, and explain the trial's end where none of them could write its result.

    Raises:
        SystemExit: If the trial failed.
    """
    from fcnlab.sweeps import trial

    trial.set_up_output(task)
    try:
        end = starting.start(task.config, task.folder, partial(trial.carry_out, task))
    except FcnlabError as error:
        task.result.fail(str(error))
        trial.write_result(task)
        return
    written = results.read(task.sweep, task.result.number)
    if end.reason is not None and (written is None or written.status == "running"):
        task.result.fail(end.reason)
        task.result.write(task.sweep)
    sys.exit(end.code)


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
