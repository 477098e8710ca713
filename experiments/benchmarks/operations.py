"""Count the arithmetic of a network, and measure how much of it a machine can do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def forward_operations(stride: int, width: float, batch: int, size: int, num_classes: int) -> float:
    """Count the multiplications and additions of a forward pass from the layer table; a step has three times as many.

    Convolutions count by their definition, whatever way they are computed. Normalisation, pooling and the loss are left
    out, which together are less than a hundredth.
    """
    from fcnlab.models.vgg import BLOCKS, scaled

    products, inputs, side, pooled = 0, 3, size, []
    for repeats, channels in BLOCKS:
        outputs = scaled(channels, width)
        for _ in range(repeats):
            products += 9 * inputs * outputs * side**2
            inputs = outputs
        side //= 2
        pooled.append((outputs, side))
    hidden = scaled(4096, width)
    products += (49 * inputs + hidden + num_classes) * hidden * side**2
    scale, upsampling = 32, 16 * num_classes**2  # a kernel of 4 x 4 at each input of a doubling
    for channels, side_here in reversed(pooled[:4]):
        if scale == stride:
            break
        products += upsampling * (side_here // 2) ** 2 + channels * num_classes * side_here**2
        scale //= 2
    products += (2 * stride) ** 2 * num_classes**2 * (size // stride) ** 2
    return 2.0 * products * batch


def measure_peak(library: str) -> float:
    """Measure the GFLOP/s of the best of three f32 matrix products by ``"torch"`` or ``"mindspore"``.

    The library runs in a process of its own.
    """
    command = [sys.executable, __file__, library]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _peak(library: str) -> float:
    return max(_rate(library, side) for side in (1024, 2048, 4096))


def _rate(library: str, side: int) -> float:
    import numpy as np

    a, b = (np.random.default_rng(seed).standard_normal((side, side), dtype=np.float32) for seed in (0, 1))
    if library == "torch":
        import torch

        multiply = partial(torch.mm, torch.from_numpy(a), torch.from_numpy(b), out=torch.empty(side, side))
    else:
        from fcnlab.core import device

        device.configure("cpu")
        import mindspore as ms

        left, right, product = ms.Tensor(a), ms.Tensor(b), ms.ops.MatMul()

        def multiply() -> None:
            product(left, right)
            ms.runtime.synchronize()

    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds[1:]) / 1e9


if __name__ == "__main__":
    print(_peak(sys.argv[1]))
