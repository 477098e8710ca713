"""The process that sends journals to MLflow, and draws, beside the one that trains: both of its ends.

MLflow takes two seconds to import, and every request some of Python's lock, which MindSpore holds while it compiles: a
thread would have to wait, and the training for it. A process of its own imports while the network is being made, and
nothing that goes wrong in it can cost the training. It draws the figures, since it is there.

One process serves all trainings of the process that started it, and ends with that one, however that ends. They talk
in lines of JSON on its standard input and output.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fcnlab.errors import FcnlabError, TrackingError
from fcnlab.imports import import_ahead, without_collection

if TYPE_CHECKING:
    import numpy as np

    from fcnlab.tracking.follower import Follower

log = logging.getLogger(__name__)

_SECONDS_ALONE = 5.0
"""To send what is left once nobody trains any more."""
_SECONDS_TO_CLOSE = 6.0
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_FOR_LOCK = 0.5
_SECONDS_OF_PATIENCE = 0.5


class LostError(TrackingError):
    """The process has ended, as when the system killed it for its memory."""


class UploadProcess:
    """The process, as the one that trains sees it.

    Raises:
        TrackingError: If it cannot be started.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._pending: dict[int, Future] = {}
        self._closed = False
        path = os.pathsep.join(entry for entry in sys.path if entry)  # a notebook may have added to it
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fcnlab.tracking.upload_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the training, which then says how it ended
            )
        except OSError as error:
            raise TrackingError(
                f"cannot start the process that sends to MLflow ({error.strerror}); train without: tracking=none"
            ) from error
        self._reader = threading.Thread(target=self._read, name="fcnlab-upload-answers", daemon=True)
        self._reader.start()
        atexit.register(self.close)

    @property
    def is_lost(self) -> bool:
        """Whether it has ended."""
        return not self._reader.is_alive()

    def new_upload(self) -> Upload:
        """For one more journal."""
        return Upload(self, next(self._numbers))

    def call(self, upload: int, name: str, arguments: dict[str, Any]) -> Future:
        """Let it call a method of a `Follower`, or ``open``, which makes that; the calls of an upload keep their order.

        Returns:
            The result; a `TrackingError` where the method raises one, or if the process is lost.
        """
        future: Future = Future()
        with self._guard:
            number = next(self._numbers)
            self._pending[number] = future
            message = {"upload": upload, "call": number, "name": name, "arguments": arguments}
            with suppress(OSError, ValueError):  # it has ended, or was closed: the reader sees that, too
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
            if self.is_lost:
                self._fail_pending()
        return future

    def close(self) -> None:
        """Let it end, and wait for that."""
        if self.owner != os.getpid():  # of a process that was forked off
            return
        self._closed = True
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1.0)

    def _read(self) -> None:
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # cut off
                continue
            if "log" in message:
                _log_here(**message["log"])
                continue
            with self._guard:
                future = self._pending.pop(message["call"], None)
            if future is None:  # given up already
                continue
            if "error" in message:
                future.set_exception(TrackingError(message["error"]))
            else:
                future.set_result(message["result"])
        code = self._process.wait()
        if not self._closed:
            log.warning("the process that sends to MLflow was lost (exit code %d)", code)
        with self._guard:
            self._fail_pending()

    def _fail_pending(self) -> None:
        while self._pending:
            _, future = self._pending.popitem()
            future.set_exception(LostError("the process that sends to MLflow was lost"))


class Upload:
    """One journal's part in an `UploadProcess`."""

    def __init__(self, process: UploadProcess, number: int) -> None:
        self.process = process
        self.number = number

    def call(self, name: str, **arguments: Any) -> Future:
        """See `UploadProcess.call`."""
        return self.process.call(self.number, name, arguments)


def wait_for(future: Future) -> Any:
    """The result of a call, waited for in a way that lets Ctrl-C through.

    Raises:
        TrackingError: Where the method does, or if the process is lost.
    """
    while True:
        with suppress(FutureTimeoutError):
            return future.result(_SECONDS_BETWEEN_LOOKS)


_shared: UploadProcess | None = None
_sharing = threading.Lock()


def shared() -> UploadProcess:
    """The process that sends for this one; started if there is none yet, or none any more.

    Raises:
        TrackingError: If it cannot be started.
    """
    global _shared
    with _sharing:
        if _shared is None or _shared.owner != os.getpid() or _shared.is_lost:
            _shared = UploadProcess()
        return _shared


def draw(folder: Path, counts: np.ndarray | None, class_names: Sequence[str]) -> Future:
    """Do there what `run_figures.draw` does: here, it would take Python's lock from whoever writes the checkpoints."""
    return (
        shared()
        .new_upload()
        .call(
            "draw",
            folder=str(folder.absolute()),
            counts=None if counts is None else counts.tolist(),
            class_names=list(class_names),
        )
    )


def _log_here(name: str, level: int, text: str) -> None:
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        logger.handle(logger.makeRecord(name, level, "", 0, text, (), None))


class _Worker(threading.Thread):
    """Makes the calls of one upload, in the process that sends."""

    def __init__(self, answer: Callable[..., None]) -> None:
        super().__init__(name="fcnlab-upload-calls", daemon=True)
        self.calls: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answer = answer
        self._follower: Follower | None = None
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
        from fcnlab.tracking import journal

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
        from fcnlab.tracking.follower import Follower

        os.chdir(directory)  # below which a store without an absolute path lies
        os.environ.clear()
        os.environ.update(environment)  # MLflow looks for its credentials there; a notebook may have changed it
        self._follower = Follower(Path(folder), **arguments)


@cache
def _warm_up() -> None:
    """What the end of a training needs and takes half a second, once."""
    from fcnlab.tracking.figures import MODULES
    from fcnlab.tracking.packaging import warm_up

    import_ahead(*MODULES)
    try:
        warm_up()
    except Exception:  # whoever needs it gets the error
        log.exception("warming up")


def _draw(folder: str, counts: list[list[int]] | None, class_names: list[str]) -> None:
    import numpy as np

    from fcnlab.tracking import run_figures

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
        upload = message.pop("upload")
        if upload not in workers:
            workers[upload] = _Worker(write)
            workers[upload].start()
        workers[upload].calls.put(message)
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

        import fcnlab.tracking.follower  # noqa: F401
    logging.basicConfig(level=logging.INFO, handlers=[_LogThere(write)])
    logging.captureWarnings(True)
    mlflow_logger = logging.getLogger("mlflow")  # which writes to standard error by itself
    mlflow_logger.handlers.clear()
    mlflow_logger.propagate = True


if __name__ == "__main__":
    main()
