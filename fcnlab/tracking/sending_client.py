"""The training's end of the sending process: starts that process and calls it.

The sending process, `fcnlab.tracking.sending_server`, sends journals to MLflow beside the training. MLflow takes two
seconds to import, and its requests need Python's lock, which MindSpore holds while it compiles: a thread would have to
wait for the training, and the training for the thread. A process of its own imports MLflow while the network is being
built, and nothing that goes wrong in it can end the training. It also draws figures.

One sending process serves all trainings of the process that started it, and ends with that process. The two exchange
lines of JSON on the sending process's standard input and output.
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

_SECONDS_TO_CLOSE = 6.0
_SECONDS_BETWEEN_LOOKS = 0.1


class LostError(TrackingError):
    """The sending process has ended unexpectedly, as when the system killed it for its memory."""


class SendingClient:
    """Starts a sending process and calls it.

    Raises:
        TrackingError: If the process cannot be started.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._pending: dict[int, Future] = {}
        self._closed = False
        path = os.pathsep.join(entry for entry in sys.path if entry)  # a notebook may have added entries
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fcnlab.tracking.sending_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C reaches only the training, which then says how it ended
            )
        except OSError as error:
            raise TrackingError(
                f"cannot start the process that sends to MLflow ({error.strerror}); train without: tracking=none"
            ) from error
        self._reader = threading.Thread(target=self._read, name="fcnlab-sending-answers", daemon=True)
        self._reader.start()
        atexit.register(self.close)

    @property
    def is_lost(self) -> bool:
        """Whether the process has ended."""
        return not self._reader.is_alive()

    def open_channel(self) -> Channel:
        """Return a channel for one more journal."""
        return Channel(self, next(self._numbers))

    def call(self, channel: int, name: str, arguments: dict[str, Any]) -> Future:
        """Call the sending process, which makes the calls of one channel in their order.

        Args:
            channel: The number of the channel.
            name: A method of `JournalFollower`; ``open``, which makes the follower of a journal; or ``draw``.
            arguments: The arguments of the call, which JSON must be able to hold.

        Returns:
            The result; a `TrackingError` where the method raises one, or if the process is lost.
        """
        future: Future = Future()
        with self._guard:
            number = next(self._numbers)
            self._pending[number] = future
            message = {"channel": channel, "call": number, "name": name, "arguments": arguments}
            with suppress(OSError, ValueError):  # the process has ended or was closed, which the reader notices as well
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
            if self.is_lost:
                self._fail_pending()
        return future

    def close(self) -> None:
        """Let the process end, and wait for its end."""
        if self.owner != os.getpid():  # this is a fork, and the process belongs to the parent
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
            except ValueError:  # the line was cut off
                continue
            if "log" in message:
                _log(**message["log"])
                continue
            with self._guard:
                future = self._pending.pop(message["call"], None)
            if future is None:  # the call was given up already
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
    """The calls about one journal."""

    def __init__(self, client: SendingClient, number: int) -> None:
        self.client = client
        self.number = number

    def call(self, name: str, **arguments: Any) -> Future:
        """Call the sending process, as `SendingClient.call` does."""
        return self.client.call(self.number, name, arguments)


def wait_for(future: Future) -> Any:
    """Wait for the result of a call, so that Ctrl-C is heard meanwhile.

    Raises:
        TrackingError: If the called method raises one, or if the process is lost.
    """
    while True:
        with suppress(FutureTimeoutError):
            return future.result(_SECONDS_BETWEEN_LOOKS)


_shared: SendingClient | None = None
_sharing = threading.Lock()


def shared() -> SendingClient:
    """Return this process's sending process, which is started if there is none.

    Raises:
        TrackingError: If the process cannot be started.
    """
    global _shared
    with _sharing:
        if _shared is None or _shared.owner != os.getpid() or _shared.is_lost:
            _shared = SendingClient()
        return _shared


def draw(folder: Path, counts: np.ndarray | None, class_names: Sequence[str]) -> Future:
    """Call `run_figures.draw` in the sending process: in this one, it would slow down the writing of checkpoints."""
    counts = None if counts is None else counts.tolist()
    channel = shared().open_channel()
    return channel.call("draw", folder=str(folder.absolute()), counts=counts, class_names=list(class_names))


def _log(name: str, level: int, text: str) -> None:
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        logger.handle(logger.makeRecord(name, level, "", 0, text, (), None))
