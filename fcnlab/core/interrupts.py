"""Ctrl-C and SIGTERM: deferred while a block must not be torn, immediate when sent again."""

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

_depth = 0  # the number of nested `deferred` blocks that the main thread is in
_pending: KeyboardInterrupt | None = None
_handed_over = threading.Event()  # the first signal has been handed to the main thread
_taken = threading.Event()  # the main thread has raised the signal
_exiting = threading.Event()  # the main thread was too late, and the process ends without it
_installed = False
_at_forced_exit: Callable[[], object] | None = None
_at_first_signal: Callable[[], object] | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a batch system sends before it kills: handled like Ctrl-C."""


def install() -> None:
    """Take Ctrl-C and SIGTERM in a separate thread, which hands them to the main thread as exceptions.

    MindSpore puts a handler of its own on SIGINT while a graph runs, which turns it into SIGTERM. Here, the signals are
    blocked in every thread, also in those that MindSpore starts later, so that only the separate thread gets them.

    A Ctrl-C after another signal ends the process at once. A second SIGTERM changes nothing, since a batch system may
    send it to a whole group and to each process. A main thread that is busy for longer than `OVERDUE_SECONDS` is not
    waited for: the function that `before_forced_exit` was given is called, and the process ends.
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


def unblock() -> None:
    """Unblock the signals in a child process that did not call `install`.

    A child inherits what is blocked: without this, the workers of a launcher could not be ended.
    """
    if _installed or not hasattr(signal, "pthread_sigmask"):
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


@contextmanager
def before_forced_exit(action: Callable[[], object]) -> Iterator[None]:
    """Call a function from another thread if the process ends within the block without its main thread."""
    global _at_forced_exit
    _at_forced_exit = action
    try:
        yield
    finally:
        _at_forced_exit = None


def on_first_signal(action: Callable[[], object] | None) -> None:
    """Call a function from another thread at the first signal, before the main thread gets it; None: call nothing."""
    global _at_first_signal
    _at_first_signal = action


def halt_if_exiting() -> None:
    """Stop the main thread, after something long, if the process is ending without it."""
    if _exiting.is_set():
        threading.Event().wait()


def _watch(signals: set[signal.Signals]) -> None:
    first = signal.sigwait(signals)
    threading.Thread(target=_interrupt, args=(first,), name="fcnlab-interrupt", daemon=True).start()
    while signal.sigwait(signals) != signal.SIGINT:
        pass
    _exit("ended at once; the last whole checkpoint is kept", signal.SIGINT)


def _interrupt(number: int) -> None:
    try:
        if _at_first_signal is not None:
            _at_first_signal()
    finally:
        _handed_over.set()
        _thread.interrupt_main(number)
        _exit_when_overdue(number)


def _exit_when_overdue(number: int) -> None:
    if _taken.wait(OVERDUE_SECONDS):
        return
    _exiting.set()
    try:
        if _at_forced_exit is not None:
            _at_forced_exit()
    finally:
        _exit("ended in the middle of a long step; the last whole checkpoint is kept", number)


def _exit(reason: str, number: int) -> None:
    os.write(2, f"fcnlab: {reason}\n".encode())
    os._exit(128 + number)


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending
    if _installed and not _handed_over.is_set():
        # The signals were unblocked in the main thread, as multiprocessing does when it starts a resource tracker.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        os.kill(os.getpid(), number)
        return
    interrupt = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    if _depth == 0:
        _raise(interrupt)
    _pending = interrupt


def _raise(interrupt: KeyboardInterrupt, cause: BaseException | None = None) -> NoReturn:
    halt_if_exiting()
    _taken.set()
    raise interrupt from cause


class deferred:  # noqa: N801 - reads like the functions of contextlib
    """A block that defers signals to its end; blocks may be nested.

    This holds only where `install` was called: elsewhere, as in a notebook, Ctrl-C is raised at any moment.
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
