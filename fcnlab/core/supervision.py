"""Keeps a worker of a data-parallel training apart from ``msrun``, which kills its workers without a warning.

On Ctrl-C, and when one worker has failed, ``msrun`` sends SIGKILL to the process group of every worker that it started.
When it gets SIGTERM, it ends and leaves them behind, with the processes that print their log files. Neither lets a
training save its state. So the process that ``msrun`` starts only waits: it has forked the worker into a session of its
own. A pipe between the two tells the worker that the waiting process is gone, and the worker then stops as it does
after SIGTERM.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from fcnlab.core import interrupts
from fcnlab.core.launch import Launch
from fcnlab.core.starter import Link

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_BETWEEN_SIGNALS = 2.0
_SECONDS_BETWEEN_LISTS = 1.0  # of all processes beside this one, each of which takes milliseconds
_SECONDS_WITHOUT_WORKERS = 5.0
_SECONDS_TO_PRINT = 1.5  # `tail -f` looks at its file once a second, at the latest
_EXIT_ERROR = 1
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def fork(launch: Launch, link: Link | None = None) -> None:
    """Return in a new process, which does the work. The process that called this waits for it and never returns.

    The new process is told to end by SIGTERM when the waiting one is gone. The scheduler is not: it ends once no worker
    needs it any more.

    Args:
        launch: How ``msrun`` started this process, in which no other thread may run yet.
        link: The connection to the process that started ``msrun``, if it is one of this package. The new process obeys
            that one, which hears from the waiting process how the new one has ended.
    """
    if not hasattr(os, "fork"):  # nothing supervises the process then
        return
    leash, held = os.pipe()
    # Until the waiting process hands signals on, they have to wait: Python drops what a handler raises within a fork.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(held)
        os.setsid()
        _continue_without_parent()
        if launch.role == "worker":
            threading.Thread(target=_end_with, args=(leash,), name="fcnlab-leash", daemon=True).start()
        if link is not None:
            (link.obey if launch.role == "worker" else link.end_with_starter)()
        return
    os.close(leash)
    _hand_on(child, launch)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _wait(child, launch, link)


def _continue_without_parent() -> None:
    """Let the kernel continue this process when its parent has ended: one that is stopped could not end, either."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _end_with(leash: int) -> None:
    """Send SIGTERM to this process once the other end of a pipe is closed."""
    # Signals are for the thread that `fcnlab.core.interrupts` makes for them, which this one is older than.
    signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
    while os.read(leash, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _hand_on(child: int, launch: Launch) -> None:
    """Let this process hand the signals that it gets on to a worker; the scheduler ends only with SIGTERM."""
    for number in interrupts.SIGNALS:
        if launch.role == "worker":
            signal.signal(number, lambda number, _: _send(child, number))
        elif number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)  # a Ctrl-C reaches the scheduler, whom the workers still need


def _wait(child: int, launch: Launch, link: Link | None) -> NoReturn:
    """Wait until a process ends, and end like it."""
    is_over = _launcher_watch(child, launch) if launch.role == "worker" else _worker_watch(child, launch)
    printer = _Printer(launch.launcher)
    while True:
        printer.find()
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            printer.end_if_left()
            _leave(os.waitstatus_to_exitcode(status), launch, link)
        is_over()
        time.sleep(_SECONDS_BETWEEN_LOOKS)


class _Printer:
    """The process that prints the log file of this one for ``msrun``, which leaves it behind when SIGTERM ends it.

    Args:
        launcher: The process of ``msrun``.
    """

    def __init__(self, launcher: int) -> None:
        self._launcher = launcher
        self._process: psutil.Process | None = None
        self._looks_left = 3  # it is started at once after this process, or never

    def find(self) -> None:
        """Look for it, unless that was done."""
        if self._looks_left == 0 or self._process is not None:
            return
        self._looks_left -= 1
        with suppress(psutil.Error, OSError):
            for other in psutil.Process(self._launcher).children():
                if other.name() == "tail" and os.path.samefile(Path(other.cwd(), other.cmdline()[-1]), "/dev/stdout"):
                    self._process = other

    def end_if_left(self) -> None:
        """End it if ``msrun`` has ended, once it has printed the last lines."""
        if self._process is None or os.getppid() == self._launcher:
            return
        time.sleep(_SECONDS_TO_PRINT)
        with suppress(psutil.Error):
            self._process.terminate()


def _launcher_watch(child: int, launch: Launch) -> Callable[[], None]:
    """Return a function that tells a worker to end once ``msrun``, which was to wait for it, is gone."""
    told = -math.inf

    def look() -> None:
        nonlocal told
        # More than once, since a process that begins may lose a signal; a second one changes nothing.
        if launch.is_joined and os.getppid() != launch.launcher and time.monotonic() - told > _SECONDS_BETWEEN_SIGNALS:
            told = time.monotonic()
            _send(child, signal.SIGTERM)

    return look


def _worker_watch(child: int, launch: Launch) -> Callable[[], None]:
    """Return a function that ends the scheduler once the workers beside it have all ended.

    The scheduler would wait for minutes for workers that have ended before they have registered.
    """
    own, seen, since = psutil.Process(), set(), time.monotonic()
    listed = -math.inf

    def look() -> None:
        nonlocal since, listed
        if time.monotonic() - listed < _SECONDS_BETWEEN_LISTS:
            return
        listed = time.monotonic()
        with suppress(psutil.Error):
            if own.ppid() == launch.launcher:
                seen.update(_workers_beside(own))
        if any(_is_alive(worker) for worker in seen):
            since = time.monotonic()
        elif seen and time.monotonic() - since > _SECONDS_WITHOUT_WORKERS:
            _send(child, signal.SIGKILL)

    return look


def _workers_beside(scheduler: psutil.Process) -> list[psutil.Process]:
    """Return the processes that ``msrun`` started from the command line from which it started the scheduler."""
    words = scheduler.cmdline()
    found = [other for other in scheduler.parent().children() if other.pid != scheduler.pid and _is_alive(other)]
    return [other for other in found if other.cmdline() == words]


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _leave(code: int, launch: Launch, link: Link | None) -> NoReturn:
    if link is not None:
        link.say_end(code)
        os._exit(_EXIT_ERROR if code < 0 else code)
    if code == -signal.SIGKILL and launch.role == "scheduler":
        os._exit(_EXIT_ERROR)
    if code < 0:
        who = f"worker {launch.rank}" if launch.role == "worker" else "the scheduler"
        with suppress(OSError):
            why = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
            print(
                f"fcnlab: {who} was ended by {signal.Signals(-code).name}{why}; the same command with resume=auto goes "
                "on from the last state",
                file=sys.stderr,
                flush=True,
            )
        code = _EXIT_ERROR
    os._exit(code)


def _send(process: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)
