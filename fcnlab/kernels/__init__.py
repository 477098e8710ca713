"""Operators in C++ where MindSpore's own are slow on a CPU, compiled by the machine's compiler on first use.

`fcnlab.models` asks here for an operator and gets None wherever there is none: on Ascend, without a C++ compiler, off
Linux, with ``FCNLAB_KERNELS=0`` in the environment, or within `stock_operators`. It then takes MindSpore's. Both are
timed shape by shape in ``experiments/benchmarks``.
"""

from __future__ import annotations

from fcnlab.kernels.operators import NormRelu, convolution3x3, direct_convolution, norm_relu, upsampling
from fcnlab.kernels.selection import describe, library, stock_operators

__all__ = [
    "NormRelu",
    "convolution3x3",
    "describe",
    "direct_convolution",
    "library",
    "norm_relu",
    "stock_operators",
    "upsampling",
]
