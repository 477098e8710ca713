"""The processes that train one network together: which of them this one is, and what they tell each other.

Tensors go through MindSpore's collective operators: `fcnlab.training.parallel` adds up gradients, and
`fcnlab.models.layers` statistics. This module starts these operators. Everything else goes through a connection
of each worker to the first one: decisions, sums of losses, confusion matrices and errors. MindSpore's operators on a
CPU add up floating point numbers alone, and give up a worker that is 30 seconds late, as one may be that compiles. Here
a worker may be as late as it likes while it lives; one that has ended, or is silent for too long, ends the others.
"""

from __future__ import annotations

import atexit
import hmac
import json
import os
import secrets
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from fcnlab.core import interrupts, output
from fcnlab.core.errors import ConfigError, TrainingError, first_line
from fcnlab.core.launch import Launch

if TYPE_CHECKING:
    import numpy as np

_HEADER = struct.Struct("<cQ")
_DATA, _ALIVE, _ERROR, _STOP = b"d", b"a", b"e", b"s"
_SECONDS_BETWEEN_SIGNS = 5.0
_SECONDS_TO_CONNECT = 60.0
_SECONDS_FOR_FIRST = 90.0
"""How long worker 0 may take to end after an error: it may have to send to MLflow until then."""
_TOKEN_BYTES = 16


def command(count: int) -> str:
    """Return the command that starts as many workers on one machine."""
    return f"msrun --worker_num={count} --local_worker_num={count} --join=True python -m fcnlab.train"


class WorkerLostError(TrainingError):
    """Another worker has ended, or does not answer."""


class Message(NamedTuple):
    """What a worker has told the others.

    Attributes:
        content: Anything that JSON holds.
        arrays: Any arrays.
    """

    content: Any
    arrays: tuple[np.ndarray, ...]


class Workers:
    """The workers of a training. This class is the one process that trains alone.

    Attributes:
        rank: The number of this worker, from 0.
        count: The number of workers.
        is_stopped: Whether a worker had been told to end before the last exchange.
        exit_code: The exit code of a worker that ends early; None while nothing has gone wrong.
    """

    rank = 0
    count = 1
    is_stopped = False
    exit_code: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is worker 0, which prints and writes."""
        return self.rank == 0

    def exchange(self, content: Any = None, *arrays: np.ndarray) -> list[Message]:
        """Tell the other workers something and wait for what they tell; all workers have to call this alike.

        Args:
            content: Anything that JSON holds.
            arrays: Any arrays.

        Returns:
            What each worker told, by rank.

        Raises:
            WorkerLostError: If a worker has ended or does not answer.
            TrainingError: In worker 0, if another one has reported an error.
            KeyboardInterrupt: If another worker was told to end and has gone.
        """
        return [Message(content, arrays)]

    def of_first(self, content: Any = None) -> Any:
        """Return what worker 0 has given; all workers have to call this alike."""
        return self.exchange(content)[0].content

    def stop_together(self) -> None:
        """Raise the signal that a worker got before the last exchange, in all workers.

        Raises:
            KeyboardInterrupt: If there was one.
        """
        if self.is_stopped:
            interrupts.take()

    def report(self, error: BaseException) -> None:
        """Tell worker 0 why this one ends early. Nothing is told if this is worker 0, or trains alone."""

    def outlast_first(self, error: BaseException) -> None:
        """Wait until worker 0 has ended, after an error that was reported.

        As soon as another worker has ended, `msrun` ends worker 0, which would then say that it was terminated rather
        than what the error is. Nothing is waited for if this is worker 0, or trains alone.
        """

    def ends_with(self, code: int) -> None:
        """Set the exit code of a worker that ends early."""

    def share(self, total: int) -> range:
        """Return the part of as many things that is this worker's; the parts differ by at most one thing."""
        return range(total * self.rank // self.count, total * (self.rank + 1) // self.count)


ALONE = Workers()
"""The one worker of a training in one process."""

_current: Workers = ALONE


def current() -> Workers:
    """Return the workers that this process has been connected with, or `ALONE`."""
    return _current


def connect(launch: Launch, silence: float) -> Workers:
    """Connect this worker with all others, once MindSpore's device is selected.

    Args:
        launch: How ``msrun`` started this process.
        silence: How long a worker may show no sign of life, in seconds.

    Raises:
        TrainingError: If the workers do not find each other.
    """
    global _current
    if _current is not ALONE:
        return _current
    from mindspore.communication import get_group_size, get_rank, init

    try:
        init()  # HCCL on Ascend, MindSpore's own collective on a CPU
    except RuntimeError as error:
        raise TrainingError(
            f"worker {launch.rank}: does not find the others through msrun's scheduler at "
            f"{os.environ.get('MS_SCHED_HOST')}:{os.environ.get('MS_SCHED_PORT')} ({first_line(error)}); give msrun "
            "another --master_port"
        ) from error
    rank, count = get_rank(), get_group_size()
    if count == 1:
        return ALONE
    _current = ConnectedWorkers(rank, count, *_meet(rank, count), silence)
    return _current


def serve() -> None:
    """Be the scheduler through which the workers of ``msrun`` find each other, until they have ended."""
    import mindspore as ms
    from mindspore.communication import init

    ms.set_context(device_target="CPU")
    init()


class ConnectedWorkers(Workers):
    """Several workers, each of which holds a connection to the first one.

    Args:
        rank: The number of this worker.
        count: The number of workers.
        links: The connections of worker 0 to the others, by their ranks; elsewhere, that to worker 0 alone.
        silence: How long a worker may show no sign of life, in seconds.
    """

    def __init__(self, rank: int, count: int, links: dict[int, socket.socket], silence: float) -> None:
        self.rank, self.count = rank, count
        self._links = links
        self._silence = silence
        self._locks = {other: threading.Lock() for other in links}
        self._closed = threading.Event()
        for link in links.values():
            link.settimeout(silence)
        threading.Thread(target=self._show_life, name="fcnlab-life", daemon=True).start()
        atexit.register(self.close)

    def exchange(self, content: Any = None, *arrays: np.ndarray) -> list[Message]:
        told = _encode([content, interrupts.is_pending()], arrays)
        if self.is_first:
            parts = {0: told, **self._receive_all()}
            told = b"".join(_frame(_DATA, parts[rank]) for rank in range(self.count))
            for other in self._links:
                self._send(other, told, framed=True)
            texts = [parts[rank] for rank in range(self.count)]
        else:
            self._send(0, told)
            texts = [self._receive(0) for _ in range(self.count)]
        messages = [_decode(text) for text in texts]
        self.is_stopped = any(message.content[1] for message in messages)
        return [Message(message.content[0], message.arrays) for message in messages]

    def report(self, error: BaseException) -> None:
        self.exit_code = 1
        interrupts.take_no_more()  # msrun ends the others when one worker has ended
        if self.is_first or self._closed.is_set():
            return
        kind, text = (_STOP, "") if isinstance(error, KeyboardInterrupt) else (_ERROR, first_line(error))
        with suppress(WorkerLostError):
            self._send(0, _frame(kind, text.encode()), framed=True)

    def outlast_first(self, error: BaseException) -> None:
        if self.is_first or self._closed.is_set() or isinstance(error, WorkerLostError):
            return
        limit = time.monotonic() + _SECONDS_FOR_FIRST
        with suppress(TrainingError):  # it has ended; until then it shows signs of life
            while time.monotonic() < limit:
                self._read(0)

    def ends_with(self, code: int) -> None:
        self.exit_code = code

    def close(self) -> None:
        """Close all connections, which tells the others that this worker has ended.

        A worker that ends early ends here: MindSpore would wait for the others. It would also print lines of its own.
        """
        self._closed.set()
        for link in self._links.values():
            with suppress(OSError):
                link.close()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        if self.exit_code is not None:
            os._exit(self.exit_code)
        output.discard(sys.__stderr__.fileno())

    def _receive_all(self) -> dict[int, bytes]:
        """Return a text from each other worker, whichever comes first."""
        found: dict[int, bytes] = {}
        heard = dict.fromkeys(self._links, time.monotonic())
        while missing := [other for other in self._links if other not in found]:
            ready = select.select([self._links[other] for other in missing], [], [], 1.0)[0]
            for other in missing:
                if self._links[other] in ready:
                    heard[other] = time.monotonic()
                    kind, text = self._read(other)
                    if kind == _DATA:
                        found[other] = text
                elif time.monotonic() - heard[other] > self._silence:
                    raise self._lost(other, "has been silent for too long")
        return found

    def _receive(self, other: int) -> bytes:
        while True:
            kind, text = self._read(other)
            if kind == _DATA:
                return text

    def _read(self, other: int) -> tuple[bytes, bytes]:
        kind, size = _HEADER.unpack(self._take(other, _HEADER.size))
        text = self._take(other, size)
        if kind == _ERROR:
            raise TrainingError(f"worker {other}: {text.decode()}")
        if kind == _STOP:
            interrupts.take()
        return kind, text

    def _take(self, other: int, size: int) -> bytes:
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            try:
                count = self._links[other].recv_into(view[got:])
            except TimeoutError as error:
                raise self._lost(other, "has been silent for too long") from error
            except OSError as error:
                raise self._lost(other, "has ended unexpectedly") from error
            if count == 0:
                raise self._lost(other, "has ended unexpectedly")
            got += count
        return bytes(buffer)

    def _send(self, other: int, text: bytes, framed: bool = False) -> None:
        try:
            with self._locks[other]:
                self._links[other].sendall(text if framed else _frame(_DATA, text))
        except OSError as error:
            raise self._lost(other, "has ended unexpectedly") from error

    def _lost(self, other: int, what: str) -> WorkerLostError:
        return WorkerLostError(f"worker {other} of {self.count} {what}")

    def _show_life(self) -> None:
        """Send a sign of life every few seconds, whatever the main thread does."""
        while not self._closed.wait(min(_SECONDS_BETWEEN_SIGNS, self._silence / 4)):
            for other in self._links:
                with suppress(WorkerLostError):
                    self._send(other, _frame(_ALIVE, b""), framed=True)


def must_start(given: int | None, launch: Launch | None) -> bool:
    """Return whether this process is to start the workers of a training rather than to train.

    Args:
        given: The value of ``trainer.workers``.
        launch: How ``msrun`` started this process; None if it did not.
    """
    return given is not None and launch is None


def check(parallel: str, given: int | None, launch: Launch | None) -> None:
    """Refuse a way to start that does not fit ``trainer.parallel`` and ``trainer.workers``.

    Args:
        parallel: The value of ``trainer.parallel``.
        given: The value of ``trainer.workers``.
        launch: How ``msrun`` started this process; None if it did not.

    Raises:
        ConfigError: If there is one process for several workers, several processes without a common training, or
            another number of workers than the one that is asked for.
    """
    if parallel == "none" and launch is not None:
        raise ConfigError(
            f"trainer.parallel=none: msrun has started {launch.workers} processes, each of which would train the same; "
            "give trainer.parallel=data, or start without msrun"
        )
    if launch is not None and given not in (None, launch.workers):
        raise ConfigError(
            f"trainer.workers={given}: msrun has started {launch.workers} workers; give trainer.workers=null, or start "
            "without msrun"
        )
    if parallel == "data" and launch is None:
        if given is not None:
            raise ConfigError(
                f"trainer.workers={given}: python -m fcnlab.train starts workers, and fcnlab.train(...) trains in its "
                "own process; start the command, or give trainer.parallel=none and trainer.workers=null"
            )
        raise ConfigError(
            "trainer.parallel=data: say how many workers to start on this machine, as in trainer.workers=2, or give "
            "trainer.parallel=none for one process"
        )
    if launch is not None and launch.rank is None:
        raise ConfigError("trainer.parallel=data: on several hosts, give msrun --node_rank=0, 1, ... on each of them")


def _meet(rank: int, count: int) -> tuple[dict[int, socket.socket]]:
    """Open the connections of worker 0 to all others; its address comes through MindSpore's collective."""
    if rank == 0:
        with socket.create_server(("", 0), backlog=count) as server:
            server.settimeout(_SECONDS_TO_CONNECT)
            token = secrets.token_bytes(_TOKEN_BYTES)
            address = socket.inet_aton(_own_address()) + struct.pack(">H", server.getsockname()[1])
            _gather(address + token)
            return (_accept(server, count, token),)
    first = _gather(bytes(4 + 2 + _TOKEN_BYTES))
    place = (socket.inet_ntoa(first[:4]), struct.unpack(">H", first[4:6])[0])
    try:
        link = socket.create_connection(place, _SECONDS_TO_CONNECT)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(first[6:] + struct.pack(">I", rank))
    except OSError as error:
        raise TrainingError(
            f"worker {rank}: cannot connect to worker 0 at {place[0]}:{place[1]} ({error.strerror or error}); let the "
            "hosts of a training connect to each other on all ports"
        ) from error
    return ({0: link},)


def _accept(server: socket.socket, count: int, token: bytes) -> dict[int, socket.socket]:
    links: dict[int, socket.socket] = {}
    while len(links) < count - 1:
        try:
            link, _ = server.accept()
            link.settimeout(_SECONDS_TO_CONNECT)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            greeting = link.recv(_TOKEN_BYTES + 4, socket.MSG_WAITALL)
        except TimeoutError as error:
            raise WorkerLostError(f"only {len(links) + 1} of {count} workers have found each other") from error
        if hmac.compare_digest(greeting[:_TOKEN_BYTES], token):  # anybody may connect
            links[struct.unpack(">I", greeting[_TOKEN_BYTES:])[0]] = link
        else:
            link.close()
    return dict(sorted(links.items()))


def _gather(own: bytes) -> bytes:
    """Return the bytes of worker 0, which each worker gets through MindSpore's collective."""
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, ops

    # Sums are all that a CPU has for numbers of every device; those of the others are 0.
    gathered = ops.AllReduce()(Tensor(np.frombuffer(own, np.uint8).astype(np.float32), ms.float32))
    return gathered.asnumpy().round().astype(np.uint8).tobytes()


def _own_address() -> str:
    """Return the address by which other hosts reach this one: that from which it reaches ``msrun``'s scheduler."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((os.environ.get("MS_SCHED_HOST", "127.0.0.1"), 1))
        return probe.getsockname()[0]


def _frame(kind: bytes, text: bytes) -> bytes:
    return _HEADER.pack(kind, len(text)) + text


def _encode(content: Any, arrays: Sequence[np.ndarray]) -> bytes:
    import numpy as np  # not at the top: it starts threads, before the command has blocked signals in them

    whole = [np.ascontiguousarray(array) for array in arrays]
    head = json.dumps([content, [[array.dtype.str, list(array.shape)] for array in whole]]).encode()
    return b"".join([struct.pack("<I", len(head)), head, *(array.tobytes() for array in whole)])


def _decode(text: bytes) -> Message:
    import numpy as np

    end = 4 + struct.unpack_from("<I", text)[0]
    content, shapes = json.loads(text[4:end])
    arrays = []
    for kind, shape in shapes:
        dtype = np.dtype(kind)
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(text, dtype, count, end).reshape(shape))
        end += count * dtype.itemsize
    return Message(content, tuple(arrays))
