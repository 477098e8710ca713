"""Ctrl-C and SIGTERM: put off while something is in the middle, at once when asked again."""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn

OVERDUE_SECONDS = 7.0
"""How long a signal may wait for the main thread, which may be compiling a graph or within a long step."""

_depth = 0  # how many `deferred` blocks the main thread is in
_pending: KeyboardInterrupt | None = None
_handed = threading.Event()  # the thread that takes the signals has handed the first one on
_taken = threading.Event()  # the main thread has seen the signal
_leaving = threading.Event()  # it did not in time, and the process ends without it
_installed = False
_last_words: Callable[[], object] | None = None
_preparation: Callable[[], object] | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a batch system sends it before it kills: handled like Ctrl-C."""


def install() -> None:
    """Take Ctrl-C and SIGTERM in a thread of their own, and hand them to the main thread as exceptions.

    MindSpore puts a handler of its own on SIGINT while a graph runs, which turns it into SIGTERM. Blocked in every
    thread (those of MindSpore start later and inherit that), the signals reach this one thread only.

    A Ctrl-C after another signal ends the process at once, whatever the main thread is doing. A second SIGTERM changes
    nothing: a batch system may send it to a whole group and to each process. A main thread that is busy for longer than
    `OVERDUE_SECONDS` is not waited for: what `last_words` was given is called, and the process ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return
    global _installed
    _installed = True
    signals = {signal.SIGINT, signal.SIGTERM}
    for number in signals:
        signal.signal(number, _handle)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    threading.Thread(target=_watch, args=(signals,), name="fcnlab-signals", daemon=True).start()


def allow() -> None:
    """Let signals through in a process that a process with `install` started, and that has not installed it itself.

    What is blocked stays blocked in processes that are started: the workers of a launcher could not be ended.
    """
    if _installed or not hasattr(signal, "pthread_sigmask"):
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


@contextmanager
def last_words(speak: Callable[[], object]) -> Iterator[None]:
    """A block in which ``speak`` is called, from another thread, before a process ends that was not waited for."""
    global _last_words
    _last_words = speak
    try:
        yield
    finally:
        _last_words = None


def prepare(preparation: Callable[[], object] | None) -> None:
    """What is to be done, in another thread, between the first signal and the main thread's hearing of it."""
    global _preparation
    _preparation = preparation


def stay_if_leaving() -> None:
    """For the main thread, after something long: if the process is ending without it, do nothing any more."""
    if _leaving.is_set():
        threading.Event().wait()


def _watch(signals: set[signal.Signals]) -> None:
    first = signal.sigwait(signals)
    threading.Thread(target=_interrupt, args=(first,), name="fcnlab-interrupt", daemon=True).start()
    while signal.sigwait(signals) != signal.SIGINT:
        pass
    _leave("ended at once; the last whole checkpoint is kept", signal.SIGINT)


def _interrupt(number: int) -> None:
    try:
        if _preparation is not None:
            _preparation()
    finally:
        _handed.set()
        _thread.interrupt_main(number)
        _leave_when_overdue(number)


def _leave_when_overdue(number: int) -> None:
    if _taken.wait(OVERDUE_SECONDS):
        return
    _leaving.set()
    try:
        if _last_words is not None:
            _last_words()
    finally:
        _leave("ended in the middle of a long step; the last whole checkpoint is kept", number)


def _leave(reason: str, number: int) -> None:
    os.write(2, f"fcnlab: {reason}\n".encode())
    os._exit(128 + number)


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending
    if _installed and not _handed.is_set():
        # Somebody let signals through to the main thread, as multiprocessing does when it starts a resource tracker.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        os.kill(os.getpid(), number)
        return
    interrupt = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    if _depth == 0:
        _raise(interrupt)
    _pending = interrupt


def _raise(interrupt: KeyboardInterrupt, cause: BaseException | None = None) -> NoReturn:
    stay_if_leaving()
    _taken.set()
    raise interrupt from cause


class deferred:  # noqa: N801 - reads like the functions of contextlib
    """A block at whose end a signal that came meanwhile is raised; blocks may be nested.

    Only where `install` was called: elsewhere, as in a notebook, Ctrl-C keeps coming at any moment.
    """

    def __enter__(self) -> None:
        global _depth
        _depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _depth, _pending
        _depth -= 1
        if _depth == 0 and _pending is not None:
            interrupt, _pending = _pending, None
            _raise(interrupt, error)
