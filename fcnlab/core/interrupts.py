"""Ctrl-C, SIGTERM and SIGHUP: deferred while a block must not be torn, and followed by the end, whatever hangs."""

from __future__ import annotations

import _thread
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn

SIGNALS = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
"""The signals that tell a process to end; Windows has no SIGHUP."""

OVERDUE_SECONDS = 7.0
"""How long a signal may wait for the main thread, which may be compiling a graph or within a long step."""

LIMIT_SECONDS = 9.5
"""How long after a signal a process that `limit_end` was called in ends at the latest."""
_SECONDS_FOR_SAVING = 60.0
"""How long after a signal a state may be written nevertheless, since all steps after the last state hang on it."""
_SECONDS_AFTER_SAVING = 2.0

_depth = 0  # the number of nested `deferred` blocks that the main thread is in
_pending: KeyboardInterrupt | None = None
_handed_over = threading.Event()  # the first signal has been handed to the main thread
_taken = threading.Event()  # the main thread has raised the signal
_exiting = threading.Event()  # the main thread was too late, and the process ends without it
_watcher: threading.Thread | None = None  # takes the signals; None before `install`
_signals: set[signal.Signals] = set()
_since: float | None = None  # the time of the first signal
_has_limit = False
_saving = False
_is_silent = False
_at_forced_exit: Callable[[], object] | None = None
_at_first_signal: Callable[[], object] | None = None
_way_on: Callable[[], str] | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a batch system sends before it kills, or SIGHUP, as the terminal is gone: handled like Ctrl-C.

    Attributes:
        number: The number of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def install() -> None:
    """Take Ctrl-C, SIGTERM and SIGHUP in a separate thread, which hands them to the main thread as exceptions.

    SIGHUP stays ignored where it is, as it is below ``nohup``.

    MindSpore puts a handler of its own on SIGINT while a graph runs, which turns it into SIGTERM. Here, the signals are
    blocked in every thread, also in those that MindSpore starts later, so that only the separate thread gets them.
    Call it before a library starts threads of its own, as numpy does when it is imported.

    A Ctrl-C after another signal ends the process at once. A second SIGTERM or SIGHUP changes nothing, since a batch
    system may send it to a whole group and to each process. A main thread that is busy for longer than
    `OVERDUE_SECONDS` is not waited for: the function that `before_forced_exit` was given is called, and the process
    ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return
    global _watcher
    _signals.update({signal.SIGINT, signal.SIGTERM})
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        _signals.add(signal.SIGHUP)
    for number in _signals:
        signal.signal(number, _handle)
    signal.pthread_sigmask(signal.SIG_BLOCK, _signals)
    sys.unraisablehook = _raise_again
    watcher = threading.Thread(target=_watch, args=(_signals,), name="fcnlab-signals", daemon=True)
    watcher.start()
    _watcher = watcher  # which a signal can be sent to from now on


def unblock() -> None:
    """Unblock the signals in a child process that did not call `install`.

    A child inherits what is blocked: without this, the workers of a launcher could not be ended.
    """
    if _watcher is not None or not hasattr(signal, "pthread_sigmask"):
        return
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def limit_end() -> None:
    """Let this process end within `LIMIT_SECONDS` of a signal from now on, whatever it waits for then.

    Only a block of `saving` is given more time.
    """
    global _has_limit
    _has_limit = True


@contextmanager
def saving() -> Iterator[None]:
    """Mark a block as one that writes the state that a training resumes from."""
    global _saving
    _saving = True
    try:
        yield
    finally:
        _saving = False


def be_silent() -> None:
    """Let this process end without a word, since another one speaks for it."""
    global _is_silent
    _is_silent = True


def is_pending() -> bool:
    """Return whether a signal waits for the end of a `deferred` block."""
    return _pending is not None


def take() -> NoReturn:
    """Raise the signal that waits for the end of a `deferred` block, or `Terminated` if there is none, at once.

    Workers that train together stop at one step, also those that no signal was sent to.

    Raises:
        KeyboardInterrupt: Always.
    """
    global _pending
    interrupt, _pending = _pending or Terminated(), None
    _raise(interrupt)


def take_no_more() -> None:
    """Raise no signal from now on, since the process ends already; `limit_end` still bounds how long that takes."""
    _taken.set()


def seconds_left() -> float | None:
    """Return how much time is left until `limit_end` ends this process, in seconds; None if it does not."""
    if _since is None or not _has_limit:
        return None
    return max(LIMIT_SECONDS - (time.monotonic() - _since), _SECONDS_AFTER_SAVING)


@contextmanager
def before_forced_exit(action: Callable[[], object]) -> Iterator[None]:
    """Call a function from another thread if the process ends within the block without its main thread."""
    global _at_forced_exit
    _at_forced_exit = action
    try:
        yield
    finally:
        _at_forced_exit = None


@contextmanager
def knowing_way_on(describe: Callable[[], str]) -> Iterator[None]:
    """Say how to go on if the process ends without its main thread within the block, or after an error left the block.

    Args:
        describe: Returns that, or nothing if there is no way on; another thread calls it.
    """
    global _way_on
    _way_on = describe
    yield
    _way_on = None


def on_first_signal(action: Callable[[], object] | None) -> None:
    """Call a function from another thread at the first signal, before the main thread gets it; None: call nothing."""
    global _at_first_signal
    _at_first_signal = action


def halt_if_exiting() -> None:
    """Stop the main thread, after something long, if the process is ending without it."""
    if _exiting.is_set():
        threading.Event().wait()


def _watch(signals: set[signal.Signals]) -> None:
    global _since
    first = signal.sigwait(signals)
    _since = time.monotonic()
    for name, work in (("interrupt", _interrupt), ("limit", _exit_at_limit)):
        threading.Thread(target=work, args=(first,), name=f"fcnlab-{name}", daemon=True).start()
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


def _exit_at_limit(number: int) -> None:
    time.sleep(LIMIT_SECONDS)
    if _saving:
        while _saving and time.monotonic() - _since < _SECONDS_FOR_SAVING:
            time.sleep(0.05)
        time.sleep(_SECONDS_AFTER_SAVING)
    if _has_limit:
        _exit("ended while it still waited for something; the last whole checkpoint is kept", number)


def _exit(reason: str, number: int) -> None:
    with suppress(Exception):  # the main thread may change what it is asked for
        if _way_on is not None and (words := _way_on()):
            reason = f"{reason}; to go on: {words}"
    with suppress(OSError, ValueError):  # nobody reads it any more
        if not _is_silent and select.select([], [2], [], 0)[1]:  # nor is a reader waited for that has stopped
            os.write(2, f"fcnlab: {reason}\n".encode())
    os._exit(128 + number)


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending
    if _watcher is not None and not _handed_over.is_set():
        # A thread took the signal: one that is older than `install`, or this one, in which multiprocessing unblocks
        # signals when it starts a resource tracker. A signal to the whole process could come to that thread again.
        signal.pthread_sigmask(signal.SIG_BLOCK, _signals)
        signal.pthread_kill(_watcher.ident, number)
        return
    if _taken.is_set():  # by `take`, before any signal came
        return
    if _calls(frame, _raise_again):
        _hand_over_soon(number)
        return
    interrupt = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
    if _depth == 0:
        _raise(interrupt)
    _pending = interrupt


def _raise(interrupt: KeyboardInterrupt, cause: BaseException | None = None) -> NoReturn:
    halt_if_exiting()
    _taken.set()
    raise interrupt from cause


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """Raise a signal again that Python has caught: it lets no error out of a generator or an object that it removes."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        _taken.clear()
        _hand_over_soon(lost.exc_value.number if isinstance(lost.exc_value, Terminated) else signal.SIGINT)
    else:
        sys.__unraisablehook__(lost)


def _hand_over_soon(number: int) -> None:
    """Hand a signal to the main thread once it has left `_raise_again`, which lets no error out, either."""
    timer = threading.Timer(0.01, _thread.interrupt_main, (number,))
    timer.daemon = True
    timer.start()


def _calls(frame: FrameType | None, function: Callable[..., object]) -> bool:
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


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
