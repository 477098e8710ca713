"""Layer by layer: the compiled operators of `fcnlab.kernels` and MindSpore's own, forward and backward.

    python experiments/benchmarks/operators.py
    python experiments/benchmarks/operators.py --width 0.25 --batch 8

Both are timed within MindSpore, by turns. Convolutions are counted by their definition: Winograd's algorithm makes a
quarter of those products, so that more GFLOP/s than the machine can do are possible.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def layers(width: float, size: int) -> list[tuple[int, int, int]]:
    """Input channels, output channels and side of each different 3x3 convolution."""
    from fcnlab.models.vgg import BLOCKS, scaled

    found, inputs, side = [], 3, size
    for repeats, channels in BLOCKS:
        for _ in range(repeats):
            layer = (inputs, scaled(channels, width), side)
            if layer not in found:
                found.append(layer)
            inputs = layer[1]
        side //= 2
    return found


def by_turns(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Median seconds of each."""
    import mindspore as ms

    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 2):
        for index, call in enumerate(calls):
            began = time.perf_counter()
            call()
            ms.runtime.synchronize()
            seconds[index].append(time.perf_counter() - began)
    return [statistics.median(values[2:]) for values in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--rounds", type=int, default=7, help="calls of each")
    arguments = parser.parse_args()

    from fcnlab import device, kernels

    device.configure("cpu")
    import mindspore as ms

    from fcnlab.models.layers import Conv3x3, NormRelu

    def pair(make: Callable[[], Any]) -> list[Any]:
        with kernels.stock_operators():
            stock = make()
        return [cell.set_train() for cell in (stock, make())]

    def timed(cells: list[Any], images: ms.Tensor) -> list[float]:
        forward = [lambda cell=cell: cell(images) for cell in cells]
        gradients = [ms.grad(cell, 0, cell.trainable_params()) for cell in cells]
        backward = [lambda gradient=gradient: gradient(images) for gradient in gradients]
        return [1000 * seconds for seconds in by_turns(forward + backward, arguments.rounds)]

    print("| layer | stock, forward | compiled | GFLOP/s | stock, forward and backward | compiled | ratio |")
    print("|---|---|---|---|---|---|---|")
    for inputs, outputs, side in layers(arguments.width, arguments.size):
        random = np.random.default_rng(0)
        images = ms.Tensor(random.standard_normal((arguments.batch, inputs, side, side), dtype=np.float32))
        convolution = pair(lambda inputs=inputs, outputs=outputs: Conv3x3(inputs, outputs, has_bias=False))
        features = ms.Tensor(random.standard_normal((arguments.batch, outputs, side, side), dtype=np.float32))
        operations = 18 * inputs * outputs * side**2 * arguments.batch
        for name, cells, given, count in (
            (f"3x3, {inputs} to {outputs}, {side}²", convolution, images, operations),
            (f"norm, ReLU, pool, {outputs}, {side}²", pair(lambda c=outputs: NormRelu(c, pool=True)), features, None),
        ):
            stock, compiled, stock_both, compiled_both = timed(cells, given)
            rate = f"{count / compiled / 1e6:.0f}" if count else ""
            print(
                f"| {name} | {stock:.1f} ms | {compiled:.1f} | {rate} | {stock_both:.1f} | {compiled_both:.1f} "
                f"| {compiled_both / stock_both:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
