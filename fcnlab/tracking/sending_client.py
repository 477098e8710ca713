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
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab.core.errors import TrackingError

if TYPE_CHECKING:
    import numpy as np


log = logging.getLogger(__name__)

_SECONDS_ALONE = 5.0
"""To send what is left once nobody trains any more."""
_SECONDS_TO_CLOSE = 6.0
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_FOR_LOCK = 0.5
_SECONDS_OF_PATIENCE = 0.5


class LostError(TrackingError):
    """The process has ended, as when the system killed it for its memory."""


class SendingClient:
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
                [sys.executable, "-m", "fcnlab.tracking.sending_server"],
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

    def open_channel(self) -> Channel:
        """For one more journal."""
        return Channel(self, next(self._numbers))

    def call(self, channel: int, name: str, arguments: dict[str, Any]) -> Future:
        """Let it call a method of a `JournalFollower`, or ``open``, which makes one.

        The calls of a channel are made in their order.

        Returns:
            The result; a `TrackingError` where the method raises one, or if the process is lost.
        """
        future: Future = Future()
        with self._guard:
            number = next(self._numbers)
            self._pending[number] = future
            message = {"channel": channel, "call": number, "name": name, "arguments": arguments}
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


class Channel:
    """One journal's part in an `SendingClient`."""

    def __init__(self, process: SendingClient, number: int) -> None:
        self.process = process
        self.number = number

    def call(self, name: str, **arguments: Any) -> Future:
        """See `SendingClient.call`."""
        return self.process.call(self.number, name, arguments)


def wait_for(future: Future) -> Any:
    """The result of a call, waited for in a way that lets Ctrl-C through.

    Raises:
        TrackingError: Where the method does, or if the process is lost.
    """
    while True:
        with suppress(FutureTimeoutError):
            return future.result(_SECONDS_BETWEEN_LOOKS)


_shared: SendingClient | None = None
_sharing = threading.Lock()


def shared() -> SendingClient:
    """The process that sends for this one; started if there is none yet, or none any more.

    Raises:
        TrackingError: If it cannot be started.
    """
    global _shared
    with _sharing:
        if _shared is None or _shared.owner != os.getpid() or _shared.is_lost:
            _shared = SendingClient()
        return _shared


def draw(folder: Path, counts: np.ndarray | None, class_names: Sequence[str]) -> Future:
    """Do there what `run_figures.draw` does: here, it would take Python's lock from whoever writes the checkpoints."""
    return (
        shared()
        .open_channel()
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
