"""Whether compiled operators are used, and why not: decided once a process, when the first network is built."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from fcnlab.kernels.build import BuildError, build

log = logging.getLogger(__name__)

VARIABLE = "FCNLAB_KERNELS"

_stock: ContextVar[bool] = ContextVar("stock", default=False)


@contextmanager
def stock_operators() -> Iterator[None]:
    """Networks built within consist of MindSpore's operators alone, as an exported one must."""
    token = _stock.set(True)
    try:
        yield
    finally:
        _stock.reset(token)


def library() -> Path | None:
    """The compiled operators that a network built here and now takes, or None."""
    if _stock.get() or os.environ.get(VARIABLE) == "0":
        return None
    import mindspore as ms

    if ms.get_context("device_target") != "CPU" or platform.system() != "Linux":
        return None  # MindSpore takes operators of others on Linux only
    return _built()


def describe() -> str:
    """What a run records, since the two kinds of operator round differently: ``"stock"`` or the library's digest."""
    path = library()
    return "stock" if path is None else f"compiled {path.stem}"


@cache
def _built() -> Path | None:
    try:
        path = build()
    except BuildError as error:
        log.warning("training takes about twice as long as it could: %s", error)
        return None
    ctypes.CDLL(str(path))  # MindSpore closes it after each question for a shape; this keeps it loaded
    return path
