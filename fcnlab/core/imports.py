"""Imports slow modules ahead of their use, while the network is being made or trains."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module


def import_ahead(*names: str) -> threading.Thread:
    """Import modules in the background, one after the other.

    A module that cannot be imported is left out: the code that needs it gets the error.

    Returns:
        The thread. Nobody has to wait for it: an import of the same module waits by itself.
    """
    thread = threading.Thread(target=_import, args=(names,), name="fcnlab-imports", daemon=True)
    thread.start()
    return thread


def _import(names: tuple[str, ...]) -> None:
    with without_collection():
        for name in names:
            with suppress(Exception):
                import_module(name)


@contextmanager
def without_collection() -> Iterator[None]:
    """Switch garbage collection off: imported modules stay, and looking through them takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
