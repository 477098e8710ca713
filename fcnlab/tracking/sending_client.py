"""The training's end of the sending process: starts that process and calls it.

The sending process, `fcnlab.tracking.sending_server`, sends journals to MLflow beside the training. MLflow takes two
seconds to import, and its requests need Python's lock, which MindSpore holds while it compiles: a thread would have to
wait for the training, and the training for the thread. A process of its own imports MLflow while the network is being
built, and nothing that goes wrong in it can end the training. It also draws figures.

One sending process serves all trainings of the process that started it, and ends with that process. The two exchange
lines of JSON on the sending process's standard input and output. The sending process says twice a second that it is
alive. One that is silent, as when it was stopped or waits for a dead file system, is killed and counts as lost: nothing
here waits for it, not even to hand it a call.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import math
import os
import queue
import subprocess
import sys
import threading
import time
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

_COMMAND = (sys.executable, "-m", "fcnlab.tracking.sending_server")
_SECONDS_TO_CLOSE = 6.0
_SECONDS_TO_DIE = 1.0
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_BEGIN = 120.0
"""How long the sending process may take until it shows that it is alive."""
_SECONDS_OF_SILENCE = 30.0
_SECONDS_OF_SILENCE_AT_CLOSE = 3.0


class LostError(TrackingError):
    """The sending process has ended unexpectedly, as when the system killed it for its memory, or does not answer."""


class Answer(Future):
    """The result of a call, and the client that waits for it."""

    def __init__(self, client: SendingClient) -> None:
        super().__init__()
        self.client = client


class SendingClient:
    """Starts a sending process and calls it.

    Raises:
        TrackingError: If the process cannot be started.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._pending: dict[int, Answer] = {}
        self._closed = False
        self._given_up = False
        self._silent = -_SECONDS_TO_BEGIN
        self._to_send: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        path = os.pathsep.join(entry for entry in sys.path if entry)  # a notebook may have added entries
        try:
            self._process = subprocess.Popen(
                _COMMAND,
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
        for name, work in (("calls", self._write), ("watch", self._watch)):
            threading.Thread(target=work, name=f"fcnlab-sending-{name}", daemon=True).start()
        atexit.register(self.close)

    @property
    def is_lost(self) -> bool:
        """Whether the process has ended or was given up."""
        return self._given_up or not self._reader.is_alive()

    @property
    def seconds_silent(self) -> float:
        """For how long the process has not shown that it is alive; negative while it begins."""
        return self._silent

    def give_up(self, reason: str) -> None:
        """Kill the process, which then counts as lost even if the system cannot end it.

        Args:
            reason: What is wrong with the process, for the log.
        """
        with self._guard:
            if self._closed or self.is_lost:
                return
            self._given_up = True
        log.warning("the process that sends to MLflow %s, so it is ended", reason)
        self._process.kill()
        with self._guard:
            self._fail_pending()

    def open_channel(self) -> Channel:
        """Return a channel for one more journal."""
        return Channel(self, next(self._numbers))

    def call(self, channel: int, name: str, arguments: dict[str, Any]) -> Answer:
        """Call the sending process, which makes the calls of one channel in their order.

        Args:
            channel: The number of the channel.
            name: A method of `JournalFollower`; ``open``, which makes the follower of a journal; or ``draw``.
            arguments: The arguments of the call, which JSON must be able to hold.

        Returns:
            The result; a `TrackingError` where the method raises one, or if the process is lost.
        """
        answer = Answer(self)
        with self._guard:
            number = next(self._numbers)
            self._pending[number] = answer
            message = {"channel": channel, "call": number, "name": name, "arguments": arguments}
            self._to_send.put(json.dumps(message).encode() + b"\n")
            if self.is_lost:
                self._fail_pending()
        return answer

    def close(self) -> None:
        """Let the process end, and wait for its end; one that does not end is killed."""
        if self.owner != os.getpid():  # this is a fork, and the process belongs to the parent
            return
        self._closed = True
        self._to_send.put(None)
        if self._given_up or not self._ends_within(_SECONDS_TO_CLOSE):
            self._process.kill()
            self._ends_within(_SECONDS_TO_DIE)  # the system cannot end one that waits for a dead file system
        self._reader.join(_SECONDS_TO_DIE)

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECONDS_BETWEEN_LOOKS)
                return True
            if self._silent > _SECONDS_OF_SILENCE_AT_CLOSE:
                return False
        return False

    def _write(self) -> None:
        """Hand over the calls, in a thread of its own: the pipe to a process that hangs is full at some time."""
        with suppress(OSError, ValueError):  # the process has ended, which the reader notices as well
            pipe = self._process.stdin.fileno()  # without the buffer of `stdin`, which the end of Python waits for
            while (line := self._to_send.get()) is not None:
                while line:
                    line = line[os.write(pipe, line) :]
        with suppress(OSError):
            self._process.stdin.close()

    def _watch(self) -> None:
        """Give up a process that is silent for too long.

        The turns of this thread are counted rather than the time: a computer that was asleep, or a training that was
        stopped, has heard nothing either.
        """
        while not self.is_lost:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            self._silent += _SECONDS_BETWEEN_LOOKS
            if self._silent > _SECONDS_OF_SILENCE:
                self.give_up(f"has been silent for {_SECONDS_OF_SILENCE:g} s")

    def _read(self) -> None:
        for line in self._process.stdout:
            self._silent = 0.0
            try:
                message = json.loads(line)
            except ValueError:  # the line was cut off
                continue
            if "alive" in message:
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
        if not (self._closed or self._given_up):
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

    def call(self, name: str, **arguments: Any) -> Answer:
        """Call the sending process, as `SendingClient.call` does."""
        return self.client.call(self.number, name, arguments)


def wait_for(answer: Answer, seconds: float = math.inf, silence: float = math.inf) -> Any:
    """Wait for the result of a call, so that Ctrl-C is heard meanwhile.

    Args:
        answer: What the call returned.
        seconds: How long to wait at most; the process is then killed, since what it does may never end.
        silence: For how many seconds the process may be silent. The client itself gives up one that is silent for long.

    Raises:
        LostError: If the process is lost, or was killed here.
        TrackingError: If the called method raises one.
    """
    deadline = time.monotonic() + seconds
    while True:
        with suppress(FutureTimeoutError):
            return answer.result(_SECONDS_BETWEEN_LOOKS)
        if time.monotonic() > deadline:
            answer.client.give_up(f"has not answered within {seconds:.0f} s")
        elif answer.client.seconds_silent > silence:
            answer.client.give_up(f"has been silent for {silence:g} s")
        else:
            continue
        if not answer.done():  # the client was closed meanwhile
            raise LostError("the process that sends to MLflow was lost")


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


def draw(folder: Path, counts: np.ndarray | None, class_names: Sequence[str]) -> Answer:
    """Call `run_figures.draw` in the sending process: in this one, it would slow down the writing of checkpoints."""
    counts = None if counts is None else counts.tolist()
    channel = shared().open_channel()
    return channel.call("draw", folder=str(folder.absolute()), counts=counts, class_names=list(class_names))


def _log(name: str, level: int, text: str) -> None:
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        logger.handle(logger.makeRecord(name, level, "", 0, text, (), None))
