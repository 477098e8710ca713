"""The sending process: answers the calls of a `SendingClient`, sends journals to MLflow, and draws figures."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fcnlab.core.errors import FcnlabError, TrackingError
from fcnlab.core.imports import import_ahead, without_collection

if TYPE_CHECKING:
    from fcnlab.tracking.journal_follower import JournalFollower

log = logging.getLogger(__name__)

_SECONDS_ALONE = 5.0
"""To send what is left once nobody trains any more."""
_SECONDS_FOR_LOCK = 0.5
_SECONDS_OF_PATIENCE = 0.5


class _Worker(threading.Thread):
    """Makes the calls of one upload, in the process that sends."""

    def __init__(self, answer: Callable[..., None]) -> None:
        super().__init__(name="fcnlab-upload-calls", daemon=True)
        self.calls: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answer = answer
        self._follower: JournalFollower | None = None
        self._ending = False

    def run(self) -> None:
        """Make calls until one of them is the end."""
        while not self._ending:
            call = self.calls.get()
            self._ending = call["name"] in ("end", "draw")
            try:
                self._answer(call=call["call"], result=self._make(call["name"], call["arguments"]))
            except FcnlabError as error:
                self._answer(call=call["call"], error=str(error))
            except Exception as error:
                log.exception("%s", call["name"])
                self._answer(call=call["call"], error=f"a bug in the upload, see the log: {error!r}")
        self._follower = None  # a notebook's process may see many

    def end_alone(self) -> None:
        """Send the rest of a training that did not live to say how it ended; somebody may go on with it already."""
        follower = self._follower
        if self._ending:
            self.join(_SECONDS_ALONE)
            return
        if follower is None or not follower.has_begun:
            return
        from fcnlab.recording import journal

        deadline = time.monotonic() + _SECONDS_FOR_LOCK
        while journal.is_being_written(follower.folder):
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        follower.end("KILLED", _SECONDS_ALONE, in_a_hurry=True)

    def _make(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "open":
            return self._open(**arguments)
        if name == "draw":
            return _draw(**arguments)
        if self._follower is None:
            raise TrackingError("the tracking store was not opened")
        return getattr(self._follower, name)(**arguments)

    def _open(self, folder: str, directory: str, environment: dict[str, str], **arguments: Any) -> None:
        from fcnlab.tracking.journal_follower import JournalFollower

        os.chdir(directory)  # below which a store without an absolute path lies
        os.environ.clear()
        os.environ.update(environment)  # MLflow looks for its credentials there; a notebook may have changed it
        self._follower = JournalFollower(Path(folder), **arguments)


@cache
def _warm_up() -> None:
    """What the end of a training needs and takes half a second, once."""
    from fcnlab.drawing.figures import FIGURE_MODULES
    from fcnlab.tracking.packaging import warm_up

    import_ahead(*FIGURE_MODULES)
    try:
        warm_up()
    except Exception:  # whoever needs it gets the error
        log.exception("warming up")


def _draw(folder: str, counts: list[list[int]] | None, class_names: list[str]) -> None:
    import numpy as np

    from fcnlab.recording import run_figures

    run_figures.draw(Path(folder), None if counts is None else np.array(counts), class_names)


class _LogThere(logging.Handler):
    """Hands log lines to the process that trains, whose console and log file they belong to."""

    def __init__(self, write: Callable[..., None]) -> None:
        super().__init__()
        self._write = write
        self.setFormatter(logging.Formatter("%(message)s"))  # the other side says when, how grave and by whom

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or record.name.startswith("fcnlab."):
            self._write(log={"name": record.name, "level": record.levelno, "text": self.format(record)})


def main() -> None:
    """Serve the process that started this one, until its end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a batch system sends them to everyone; the end comes from the parent
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = os.getppid()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what somebody prints is no answer
    guard = threading.Lock()

    def write(**message: Any) -> None:
        with guard, suppress(OSError):  # nobody is there any more to hear it
            output.write(json.dumps(message).encode() + b"\n")
            output.flush()

    messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, messages), daemon=True).start()
    _import(write)
    workers: dict[int, _Worker] = {}
    while (message := _next(messages, parent)) is not None:
        channel = message.pop("channel")
        if channel not in workers:
            workers[channel] = _Worker(write)
            workers[channel].start()
        workers[channel].calls.put(message)
    endings = [threading.Thread(target=worker.end_alone, daemon=True) for worker in workers.values()]
    for ending in endings:
        ending.start()
    for ending in endings:
        ending.join()
    os._exit(0)  # without waiting for a request that hangs


def _receive(lines: IO[bytes], messages: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    received = False
    for line in lines:
        if line.endswith(b"\n"):
            messages.put(json.loads(line))
            received = True
    if not received:  # nobody has to wait for the imports to end
        os._exit(0)
    messages.put(None)


def _next(messages: queue.SimpleQueue[dict[str, Any] | None], parent: int) -> dict[str, Any] | None:
    """The next message; None if there will be none, since the parent is gone or has said so."""
    while True:
        try:
            return messages.get(timeout=_SECONDS_OF_PATIENCE)
        except queue.Empty:
            if os.getppid() != parent:  # a process that it forked off may hold the other end of the pipe
                return None
            _warm_up()  # nobody waits for anything: it compiles, or trains


def _import(write: Callable[..., None]) -> None:
    with without_collection():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - what most stores are

        import fcnlab.tracking.journal_follower  # noqa: F401
    logging.basicConfig(level=logging.INFO, handlers=[_LogThere(write)])
    logging.captureWarnings(True)
    mlflow_logger = logging.getLogger("mlflow")  # which writes to standard error by itself
    mlflow_logger.handlers.clear()
    mlflow_logger.propagate = True


if __name__ == "__main__":
    main()
