"""Operators in C++ where MindSpore's own are slow on a CPU, compiled by the machine's compiler on first use.

`fcnlab.models` and `fcnlab.losses` ask here for operators, and use MindSpore's wherever they get None: on Ascend,
without a C++ compiler, on other systems than Linux, with ``FCNLAB_KERNELS=0`` in the environment, and within
`stock_operators`. Both kinds are timed shape by shape in ``experiments/benchmarks``.
"""

from __future__ import annotations

from fcnlab.kernels.operators import (
    NormReluOperators,
    channel_sums,
    convolution3x3,
    convolution3x3_norm_relu,
    cross_entropy,
    direct_convolution,
    norm_relu,
    norm_relu_of_workers,
    of_bfloat16,
    upsampling,
)
from fcnlab.kernels.selection import describe, has_bfloat16_products, library, stock_operators

__all__ = [
    "NormReluOperators",
    "channel_sums",
    "convolution3x3",
    "convolution3x3_norm_relu",
    "cross_entropy",
    "describe",
    "direct_convolution",
    "has_bfloat16_products",
    "library",
    "norm_relu",
    "norm_relu_of_workers",
    "of_bfloat16",
    "stock_operators",
    "upsampling",
]
