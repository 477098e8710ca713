"""What the process that starts workers through ``msrun`` shares with them: its task, its output, signals and its end.

``msrun`` gives its workers no standard input, writes their output into files and kills them where it should wait. So
each worker that this package starts opens a connection to the process that started it, a socket of the file system in a
private folder. It gets its task there, and worker 0 gets the starter's own standard output and standard error. Signals
follow one by one. When the connection ends, the starter is gone, and the worker ends, too.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from fcnlab.core import interrupts, owned_folder
from fcnlab.core.launch import Launch

VARIABLE = "FCNLAB_STARTER"
"""The environment variable with the path of the socket."""

_SIZE = struct.Struct(">Q")
_RANK = struct.Struct(">i")
_CODE = struct.Struct(">i")
_SCHEDULER = -1
_LARGEST_PATH = 100  # bytes, of the 104 or 108 that systems allow
_SECONDS_TO_CONNECT = 60.0
_SECONDS_OF_SCHEDULER = 75.0
"""How long the scheduler outlives a starter that was killed: the workers still save their state."""

is_possible = hasattr(socket, "AF_UNIX") and hasattr(socket, "send_fds") and hasattr(os, "fork")
"""Whether this system has what connects a starter with its workers."""


class Starter:
    """The starter's end of the connections, which is a context manager.

    Args:
        count: The number of workers that will connect.
        task: What each of them gets.

    Attributes:
        environment: What the workers' environment has to hold.
        codes: The exit codes that are known, by rank; a negative one is the number of the signal that killed a worker.
    """

    def __init__(self, count: int, task: bytes) -> None:
        self._count = count
        self._task = task
        self._folder = _short_folder()
        path = self._folder / "socket"
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(count + 1)
        self.environment = {VARIABLE: str(path)}
        self.codes: dict[int, int] = {}
        self._links: dict[int, socket.socket] = {}
        self._began: set[int] = set()
        self._is_closed = False

    def __enter__(self) -> Starter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse_more()
        self.release_scheduler()
        for link in self._links.values():
            link.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def has_begun(self) -> bool:
        """Whether a worker has connected."""
        return any(rank >= 0 for rank in self._began)

    @property
    def has_workers(self) -> bool:
        """Whether a worker is connected."""
        return any(rank >= 0 for rank in self._links)

    @property
    def is_over(self) -> bool:
        """Whether all workers had connected and have ended, or the last one has and no other may come."""
        has_all = self._is_closed or len(self._began - {_SCHEDULER}) == self._count
        return has_all and not self.has_workers

    def look(self, seconds: float) -> None:
        """Wait until a worker connects or says something, and take it; at most for some seconds."""
        watched = list(self._links.values()) + ([] if self._is_closed else [self._server])
        ready = select.select(watched, [], [], seconds)[0] if watched else time.sleep(seconds) or []
        if self._server in ready:
            self._accept()
        for rank, link in list(self._links.items()):
            if link in ready:
                self._read(rank, link)

    def send_signal(self, number: int) -> None:
        """Send a signal to all workers that are connected."""
        for rank, link in self._links.items():
            if rank >= 0:
                with suppress(OSError):
                    link.sendall(bytes([number]))

    def refuse_more(self) -> None:
        """Let no other worker connect: one that tries it ends."""
        self._is_closed = True
        self._server.close()

    def release_scheduler(self) -> None:
        """End the scheduler, which no worker needs any more; without it, ``msrun`` ends soon."""
        if (link := self._links.pop(_SCHEDULER, None)) is not None:
            with suppress(OSError):
                link.sendall(bytes([signal.SIGTERM]))
            link.close()

    def _accept(self) -> None:
        link, _ = self._server.accept()
        link.settimeout(_SECONDS_TO_CONNECT)
        with suppress(OSError):
            (rank,) = _RANK.unpack(_take(link, _RANK.size))
            head = _SIZE.pack(len(self._task))
            if rank == 0:
                socket.send_fds(link, [head], [_open_or_null(1), _open_or_null(2)])
            else:
                link.sendall(head)
            link.sendall(self._task)
            self._links[rank] = link
            self._began.add(rank)
            return
        link.close()

    def _read(self, rank: int, link: socket.socket) -> None:
        try:
            data = _take(link, _CODE.size)
        except OSError:
            del self._links[rank]
            link.close()
        else:
            self.codes[rank] = _CODE.unpack(data)[0]


class Link:
    """A worker's end of its connection to the starter.

    Attributes:
        task: What the starter asks for.
    """

    def __init__(self, connection: socket.socket, task: bytes) -> None:
        self._connection = connection
        self.task = task

    def obey(self) -> None:
        """Raise the starter's signals in this process from now on, and SIGINT once the starter is gone.

        They wait until `fcnlab.core.interrupts.install` takes signals. After an earlier signal, SIGINT ends the process
        at once.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
        threading.Thread(target=self._raise_signals, name="fcnlab-starter", daemon=True).start()

    def end_with_starter(self) -> None:
        """End this process, which is the scheduler, when the starter says so, or some time after it is gone."""
        threading.Thread(target=self._exit, name="fcnlab-starter", daemon=True).start()

    def say_end(self, code: int) -> None:
        """Tell the starter how this worker ended; a negative code is the number of the signal that killed it."""
        with suppress(OSError):
            self._connection.sendall(_CODE.pack(code))

    def _raise_signals(self) -> None:
        while (number := self._next()) is not None:
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGINT)

    def _exit(self) -> None:
        if self._next() is None:
            time.sleep(_SECONDS_OF_SCHEDULER)
        os._exit(0)

    def _next(self) -> int | None:
        try:
            data = self._connection.recv(1)
        except OSError:
            data = b""
        return data[0] if data else None


def connect(launch: Launch, path: str | None) -> Link | None:
    """Connect a process of ``msrun`` to its starter, and let worker 0 write where the starter does.

    Args:
        launch: How ``msrun`` started this process, in which no other thread may run yet.
        path: The path of the starter's socket.

    Returns:
        None if the starter is gone, or takes no other worker.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_SECONDS_TO_CONNECT)
        connection.connect(path or "")
        rank = _SCHEDULER if launch.role == "scheduler" else launch.rank
        connection.sendall(_RANK.pack(rank))
        head, descriptors, _, _ = socket.recv_fds(connection, _SIZE.size, 2)
        task = _take(connection, _SIZE.unpack(head)[0])
        connection.settimeout(None)
    except (OSError, struct.error):
        connection.close()
        return None
    for own, given in zip((1, 2), descriptors, strict=False):
        os.dup2(given, own)
        os.close(given)
    if descriptors:
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
    return Link(connection, task)


def _take(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = link.recv(min(size - len(data), 2**20))
        if not part:
            raise ConnectionError("the other end is closed")
        data += part
    return data


def _short_folder() -> Path:
    """Make a private folder whose path leaves room for the name of a socket."""
    folder = owned_folder.make("fcnlab-starter-")
    if len(os.fsencode(folder)) <= _LARGEST_PATH - len("/socket"):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return owned_folder.make("fcnlab-starter-", Path("/tmp"))


_null: int | None = None


def _open_or_null(descriptor: int) -> int:
    """Return a descriptor, or one that drops what is written to it if that one is closed."""
    global _null
    try:
        os.fstat(descriptor)
    except OSError:
        if _null is None:
            _null = os.open(os.devnull, os.O_WRONLY)
        return _null
    return descriptor
