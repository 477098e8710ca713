"""Modules that take long to import and are needed later: imported while the network is being made or trains."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module


def import_ahead(*names: str) -> threading.Thread:
    """Import modules in the background, one after the other.

    What cannot be imported is left out: whoever needs it gets the error.

    Returns:
        The thread, which nobody has to wait for: Python lets an import wait for the same one that is under way.
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
    """Modules stay: to look through all of MindSpore's again and again for garbage is a quarter of an import's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
