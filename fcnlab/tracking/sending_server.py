"""The sending process, which sends journals to MLflow and draws figures: it answers the calls of a `SendingClient`."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fcnlab.core import owned_folder
from fcnlab.core.errors import FcnlabError, TrackingError
from fcnlab.core.imports import import_ahead, without_collection

if TYPE_CHECKING:
    from fcnlab.tracking.journal_follower import JournalFollower

log = logging.getLogger(__name__)

_SECONDS_ALONE = 5.0
"""How long the rest of a journal may take once the training's process is gone."""
_SECONDS_FOR_LOCK = 0.5
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_SIGNS = 0.5
"""How often this process says that it is alive, by which the client notices one that hangs."""

_temporary: Path | None = None
"""The folder of this process's temporary files."""


class _Worker(threading.Thread):
    """Makes the calls of one channel."""

    def __init__(self, answer: Callable[..., None]) -> None:
        super().__init__(name="fcnlab-sending-calls", daemon=True)
        self.calls: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answer = answer
        self._follower: JournalFollower | None = None
        self._ending = False

    def run(self) -> None:
        """Make calls until one of them is the channel's last."""
        while not self._ending:
            call = self.calls.get()
            self._ending = call["name"] in ("end", "draw")
            try:
                self._answer(call=call["call"], result=self._make(call["name"], call["arguments"]))
            except FcnlabError as error:
                self._answer(call=call["call"], error=str(error))
            except Exception as error:
                log.exception("%s", call["name"])
                self._answer(call=call["call"], error=f"a bug in the sending process, see the log: {error!r}")
        self._follower = None  # frees its memory: a notebook's process may open many channels

    def end_alone(self) -> None:
        """Send the rest of a training whose process is gone, unless it is being resumed already."""
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
        follower.end(journal.MLFLOW_STATUS["killed"], _SECONDS_ALONE, in_a_hurry=True)

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

        os.chdir(directory)  # the address of the store may be relative to it
        os.environ.clear()
        os.environ.update(environment)  # MLflow reads its credentials there, which a notebook may have changed
        self._follower = JournalFollower(Path(folder), **arguments)


def _draw(folder: str, counts: list[list[int]] | None, class_names: list[str]) -> None:
    import numpy as np

    from fcnlab.recording import run_figures

    run_figures.draw(Path(folder), None if counts is None else np.array(counts), class_names)


class _LogSender(logging.Handler):
    """Sends log lines to the training's process, which has the console and the log file."""

    def __init__(self, write: Callable[..., None]) -> None:
        super().__init__()
        self._write = write
        self.setFormatter(logging.Formatter("%(message)s"))  # the client adds time, level and logger

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or record.name.startswith("fcnlab."):
            self._write(log={"name": record.name, "level": record.levelno, "text": self.format(record)})


def main() -> None:
    """Serve the process that started this one, until that process ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a batch system signals every process, but the training decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = os.getppid()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    guard = threading.Lock()

    def write(**message: Any) -> None:
        with guard, suppress(OSError):  # nobody reads the answers any more
            output.write(json.dumps(message).encode() + b"\n")
            output.flush()

    threading.Thread(target=_show_life, args=(write,), name="fcnlab-sending-life", daemon=True).start()
    _keep_temporary_files_together()
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
    _leave()


def _keep_temporary_files_together() -> None:
    """Let MLflow write its temporary files into one folder, which this process removes, or a later one if it dies."""
    global _temporary
    with suppress(OSError):  # MLflow says what is wrong with the disk where that matters
        _temporary = owned_folder.make("fcnlab-sending-")
        tempfile.tempdir = str(_temporary)


def _leave() -> None:
    """End this process without waiting for a request that hangs."""
    if _temporary is not None:
        shutil.rmtree(_temporary, ignore_errors=True)
    os._exit(0)


def _show_life(write: Callable[..., None]) -> None:
    while True:
        write(alive=True)
        time.sleep(_SECONDS_BETWEEN_SIGNS)


def _receive(lines: IO[bytes], messages: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    received = False
    for line in lines:
        if line.endswith(b"\n"):
            messages.put(json.loads(line))
            received = True
    if not received:  # there is nothing to send, so there is no need to finish the imports
        _leave()
    messages.put(None)


def _next(messages: queue.SimpleQueue[dict[str, Any] | None], parent: int) -> dict[str, Any] | None:
    """Return the next message; None if the parent has closed the pipe or ended, so that there will be none."""
    while True:
        try:
            return messages.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            if os.getppid() != parent:  # a fork of the parent may still hold the other end of the pipe
                return None
            _warm_up()  # the parent compiles or trains: nobody waits for this process


@cache
def _warm_up() -> None:
    """Prepare what the end of a training needs, which takes half a second the first time."""
    from fcnlab.drawing.figures import FIGURE_MODULES
    from fcnlab.tracking.packaging import warm_up

    import_ahead(*FIGURE_MODULES)
    try:
        warm_up()
    except Exception:  # the error shows again where the model is packaged
        log.exception("warming up")


def _import(write: Callable[..., None]) -> None:
    with without_collection():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - most stores are databases

        import fcnlab.tracking.journal_follower  # noqa: F401
    logging.basicConfig(level=logging.INFO, handlers=[_LogSender(write)])
    logging.captureWarnings(True)
    mlflow_logger = logging.getLogger("mlflow")  # writes to standard error unless its handlers are removed
    mlflow_logger.handlers.clear()
    mlflow_logger.propagate = True


if __name__ == "__main__":
    main()
