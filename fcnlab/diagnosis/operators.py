"""Says whether the compiled operators are used here, and measures how fast they are."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import numpy as np

from fcnlab.core import device
from fcnlab.kernels import selection
from fcnlab.kernels.compiler import BuildError, find_compiler

if TYPE_CHECKING:
    from mindspore import nn

_CHANNELS, _SIZE = 64, 128
_SECONDS = 2.0
"""How long each kind of operator is measured."""


def compiler() -> tuple[bool, str]:
    """Return whether there is a C++ compiler that is new enough, and which one, or what is wrong."""
    try:
        found = find_compiler()
    except BuildError as error:
        return False, str(error)
    version = re.search(r'^#define __VERSION__ "(.*)"$', found.macros, re.MULTILINE)
    return True, " ".join((found.path, *filter(None, [version and version[1]]), *found.flags))


def speed() -> tuple[bool, str]:
    """Measure a 3x3 convolution with compiled operators and with MindSpore's, for four seconds together.

    Returns:
        Whether networks are built with compiled operators, or were told not to be; and the speeds in GFLOP/s, where a
        multiplication and an addition are two operations.
    """
    device.configure("cpu", "pynative")
    from fcnlab.models.layers import Conv3x3

    with selection.stock_operators():
        stock = _gigaflops(Conv3x3(_CHANNELS, _CHANNELS, has_bias=True))
    what = f"a 3x3 convolution of {_CHANNELS} channels computes"
    if selection.library() is None:
        asked = os.environ.get(selection.VARIABLE) == "0"
        reason = f"{selection.VARIABLE}=0 asks for them" if asked else "there are no compiled ones"
        return asked, f"MindSpore's, as {reason}; {what} {stock:.0f} GFLOP/s"
    compiled = _gigaflops(Conv3x3(_CHANNELS, _CHANNELS, has_bias=True))
    return True, f"{selection.describe()}; {what} {compiled:.0f} GFLOP/s, and {stock:.0f} with MindSpore's"


def _gigaflops(layer: nn.Cell) -> float:
    """Return the speed of the fastest of many calls."""
    from mindspore import Tensor

    images = Tensor(np.random.default_rng(0).standard_normal((1, _CHANNELS, _SIZE, _SIZE), np.float32))
    layer(images).asnumpy()  # the first call prepares the operator
    best, end = float("inf"), time.monotonic() + _SECONDS
    while time.monotonic() < end:
        began = time.perf_counter()
        layer(images).asnumpy()
        best = min(best, time.perf_counter() - began)
    return 2 * 9 * _CHANNELS * _CHANNELS * _SIZE * _SIZE / best / 1e9
