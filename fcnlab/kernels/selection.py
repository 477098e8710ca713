"""Decides, once in a process, whether networks are built with compiled operators."""

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

from fcnlab.core.processor import cpu_flags, processor_time_is_limited, usable_processors
from fcnlab.kernels.build import build
from fcnlab.kernels.compiler import BuildError

log = logging.getLogger(__name__)

VARIABLE = "FCNLAB_KERNELS"

_RIGHT, _WRONG, _NO_MEMORY = 1, 2, 3
"""What the library's `has_bfloat16_products` returns where the instructions are there: none was at hand when the
operators were written, so that each process that needs them compares them with the definition first."""

_stock: ContextVar[bool] = ContextVar("stock", default=False)


@contextmanager
def stock_operators() -> Iterator[None]:
    """Build networks from MindSpore's operators alone within this block, as an export needs them."""
    token = _stock.set(True)
    try:
        yield
    finally:
        _stock.reset(token)


def library() -> Path | None:
    """Return the library of compiled operators that a network built now shall use, or None."""
    if _stock.get() or os.environ.get(VARIABLE) == "0":
        return None
    import mindspore as ms

    if ms.get_context("device_target") != "CPU" or platform.system() != "Linux":
        return None  # MindSpore loads custom operators on Linux alone
    return _built()


def describe(bfloat16: bool = False) -> str:
    """Return ``"stock"`` or the library's digest for the record of a run, since the two kinds round differently.

    Args:
        bfloat16: Whether the run computes products of bfloat16 where it can, which is then said, too.
    """
    path = library()
    if path is None:
        return "stock"
    return f"compiled {path.stem}{' with AMX' if bfloat16 and has_bfloat16_products() else ''}"


def has_bfloat16_products() -> bool:
    """Whether there are compiled convolutions that multiply bfloat16, which need a processor with AMX."""
    path = library()
    return path is not None and _has_bfloat16_products(path)


@cache
def _has_bfloat16_products(path: Path) -> bool:
    found = ctypes.CDLL(str(path)).has_bfloat16_products()
    if found == _NO_MEMORY:
        raise MemoryError
    if found == _WRONG:
        log.warning(
            "this processor's matrix instructions (AMX) compute other convolutions than expected, and are not used; "
            "please report this with what python -m fcnlab.doctor says"
        )
    elif found != _RIGHT and "amx_bf16" in cpu_flags():
        log.warning(
            "this processor's matrix instructions (AMX) are not used: they need a compiler and an assembler that know "
            "them (GCC 11 or Clang 13, binutils 2.35) and a Linux that allows them (5.16, and no sandbox against it)"
        )
    return found == _RIGHT


@cache
def _built() -> Path | None:
    try:
        path = build()
    except BuildError as error:
        log.warning("training takes about twice as long as it could: %s", error)
        return None
    # This keeps the library loaded, and the numbers in it: MindSpore closes it each time it has inferred a shape.
    operators = ctypes.CDLL(str(path))
    operators.use_threads(ctypes.c_int64(usable_processors()))
    operators.let_threads_spin(ctypes.c_int64(not processor_time_is_limited()))
    return path
