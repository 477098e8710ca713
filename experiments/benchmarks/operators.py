"""Time each layer with the compiled operators of `fcnlab.kernels` and with MindSpore's own, forward and backward.

    python experiments/benchmarks/operators.py
    python experiments/benchmarks/operators.py --width 0.25 --batch 8
    python experiments/benchmarks/operators.py --only upsampling --classes 2 8 21

Both are timed within MindSpore, by turns. Convolutions are counted by their definition: Winograd's algorithm makes a
quarter of those products, and the operator of fc6 leaves out those with padding, so that more GFLOP/s than the machine
can do are possible.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class Layer(NamedTuple):
    """A layer that is timed.

    Attributes:
        name: The name that is printed.
        make: Makes a new layer, of compiled operators where there are any.
        channels: The channels of its input.
        side: The side of its input in pixels.
        operations: Multiplications and additions for one image, by the definition; None to print no rate.
    """

    name: str
    make: Callable[[], Any]
    channels: int
    side: int
    operations: int | None


def encoder_layers(width: float, size: int) -> Iterator[Layer]:
    """Yield each different 3x3 convolution and the normalisation after it."""
    from fcnlab.models.layers import Conv3x3, NormRelu
    from fcnlab.models.vgg import BLOCKS, scaled

    found, inputs, side = set(), 3, size
    for repeats, channels in BLOCKS:
        outputs = scaled(channels, width)
        for _ in range(repeats):
            if (inputs, outputs, side) not in found:
                found.add((inputs, outputs, side))
                convolution = partial(Conv3x3, inputs, outputs, has_bias=False)
                operations = 18 * inputs * outputs * side**2
                yield Layer(f"3x3, {inputs} to {outputs}, {side}²", convolution, inputs, side, operations)
                norm = partial(NormRelu, outputs, pool=True)
                yield Layer(f"norm, ReLU, pool, {outputs}, {side}²", norm, outputs, side, None)
            inputs = outputs
        side //= 2


def coarse_layers(width: float, size: int) -> Iterator[Layer]:
    """Yield fc6 and fc7."""
    from fcnlab.models.layers import HeadConv2d
    from fcnlab.models.vgg import BLOCKS, scaled

    inputs, hidden, side = scaled(BLOCKS[-1][1], width), scaled(4096, width), size // 32
    for name, channels, kernel in (("fc6", inputs, 7), ("fc7", hidden, 1)):
        convolution = partial(HeadConv2d, channels, hidden, kernel)
        operations = 2 * channels * hidden * kernel**2 * side**2
        yield Layer(f"{name}, {channels} to {hidden}, {side}²", convolution, channels, side, operations)


def upsampling_layers(classes: list[int], size: int) -> Iterator[Layer]:
    """Yield the upsampling layers of all strides: twofold between scores, and from a stride to the image."""
    from fcnlab.models.fcn import STRIDES
    from fcnlab.models.layers import BilinearUpsampling

    twofold = [(2, size // stride) for stride in STRIDES[:-1]]
    for channels in classes:
        for stride, side in twofold + [(stride, size // stride) for stride in reversed(STRIDES)]:
            upsampling = partial(BilinearUpsampling, channels, stride)
            operations = 8 * (channels * stride * side) ** 2
            yield Layer(f"{stride}-fold, {channels} classes, {side}²", upsampling, channels, side, operations)


def losses(classes: list[int], size: int, batch: int) -> Iterator[Layer]:
    """Yield the cross-entropy of logits as large as the images."""
    import mindspore as ms
    from mindspore import nn

    from fcnlab.losses import CrossEntropy

    class Labelled(nn.Cell):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.loss = CrossEntropy(255, channels)
            labels = np.random.default_rng(0).integers(0, channels, (batch, size, size))
            # A constant would be computed with when the graph is compiled.
            self.labels = ms.Parameter(ms.Tensor(labels, ms.int32), requires_grad=False)

        def construct(self, logits: ms.Tensor) -> ms.Tensor:
            return self.loss(logits, self.labels)

    for channels in classes:
        yield Layer(f"cross-entropy, {channels} classes, {size}²", partial(Labelled, channels), channels, size, None)


def by_turns(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Call each in turn, and return its median seconds."""
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
    parser.add_argument("--batch", type=int, default=2, help="images of a batch")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 21], help="channels of upsampling and loss")
    parser.add_argument("--only", choices=("encoder", "coarse", "upsampling", "loss"), help="time only these layers")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each")
    arguments = parser.parse_args()

    from fcnlab import kernels
    from fcnlab.core import device

    device.configure("cpu")
    import mindspore as ms

    def pair(make: Callable[[], Any]) -> list[Any]:
        with kernels.stock_operators():
            stock = make()
        return [cell.set_train() for cell in (stock, make())]

    def timed(cells: list[Any], images: ms.Tensor) -> list[float]:
        forward = [lambda cell=cell: cell(images) for cell in cells]
        # Not `ms.grad`, which leaves out a forward pass whose output no gradient needs.
        gradients = [ms.value_and_grad(cell, 0, cell.trainable_params() or None) for cell in cells]
        backward = [lambda gradient=gradient: gradient(images) for gradient in gradients]
        return [1000 * seconds for seconds in by_turns(forward + backward, arguments.rounds)]

    layers = {
        "encoder": encoder_layers(arguments.width, arguments.size),
        "coarse": coarse_layers(arguments.width, arguments.size),
        "upsampling": upsampling_layers(arguments.classes, arguments.size),
        "loss": losses(arguments.classes, arguments.size, arguments.batch),
    }
    print("| layer | stock, forward | compiled | GFLOP/s | stock, forward and backward | compiled | ratio |")
    print("|---|---|---|---|---|---|---|")
    for layer in layers[arguments.only] if arguments.only else chain.from_iterable(layers.values()):
        random = np.random.default_rng(0)
        shape = (arguments.batch, layer.channels, layer.side, layer.side)
        images = ms.Tensor(random.standard_normal(shape, dtype=np.float32))
        stock, compiled, stock_both, compiled_both = timed(pair(layer.make), images)
        rate = f"{layer.operations * arguments.batch / compiled / 1e6:.0f}" if layer.operations else ""
        print(
            f"| {layer.name} | {stock:.1f} ms | {compiled:.1f} | {rate} | {stock_both:.1f} | {compiled_both:.1f} "
            f"| {compiled_both / stock_both:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
