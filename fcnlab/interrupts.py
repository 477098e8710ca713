"""Ctrl-C and SIGTERM: put off while something is in the middle, at once when asked again."""

from __future__ import annotations

import _thread
import os
import signal
import threading
from types import FrameType, TracebackType

_depth = 0  # how many `deferred` blocks the main thread is in
_pending: KeyboardInterrupt | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a batch system sends it before it kills: handled like Ctrl-C."""


def install() -> None:
    """Take Ctrl-C and SIGTERM in a thread of their own, and hand them to the main thread as exceptions.

    MindSpore puts a handler of its own on SIGINT while a graph runs, which turns it into SIGTERM. Blocked in every
    thread (those of MindSpore start later and inherit that), the signals reach this one thread only.

    A Ctrl-C after another signal ends the process at once, whatever the main thread is doing. A second SIGTERM changes
    nothing: a batch system may send it to a whole group and to each process.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return
    signals = {signal.SIGINT, signal.SIGTERM}
    for number in signals:
        signal.signal(number, _handle)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    threading.Thread(target=_watch, args=(signals,), name="fcnlab-signals", daemon=True).start()


def _watch(signals: set[signal.Signals]) -> None:
    _thread.interrupt_main(signal.sigwait(signals))
    while signal.sigwait(signals) != signal.SIGINT:
        pass
    os.write(2, b"fcnlab: ended at once; the last whole checkpoint is kept\n")
    os._exit(128 + signal.SIGINT)


def _handle(number: int, frame: FrameType | None) -> None:
    global _pending
    interrupt = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
    if _depth == 0:
        raise interrupt
    _pending = interrupt


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
            raise interrupt from error
