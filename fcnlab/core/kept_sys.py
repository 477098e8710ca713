"""Keeps what other code has put into the module ``sys``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_sys() -> Iterator[None]:
    """Put back what the block replaces in the module ``sys``, such as ``sys.stderr`` and ``sys.excepthook``.

    To store a graph, MindSpore makes a module of whatever the running script imports. For ``sys``, Python then sets
    ``sys.stderr`` and more back to what they were before the program began, after which a notebook's next cell fails.
    """
    before = dict(vars(sys))
    try:
        yield
    finally:
        for name, value in before.items():
            if vars(sys).get(name) is not value:
                setattr(sys, name, value)
