"""Compare the rounding of the compiled operators, MindSpore's own and PyTorch's with float64 (the extra ``benchmark``).

    python experiments/benchmarks/accuracy.py                # the layers and the network of a quarter of the width
    python experiments/benchmarks/accuracy.py --width 1

An error is the root mean square of the difference from what PyTorch computes in float64 with the same numbers, divided
by the root mean square of that. The second table is of a whole network: its logits, and how far the loss is from that
of the float64 training after steps of Adam, which divides by the size of each gradient and so magnifies what rounding
does to the smallest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import fcnlab  # noqa: F401  # before MindSpore, for which it sets variables

# isort: split
import mindspore as ms
import torch
from operators import Layer, coarse_layers, encoder_layers, upsampling_layers
from pytorch import FCN
from torch.nn import functional
from train_step import LEARNING_RATE, NUM_CLASSES, Configuration, product

from fcnlab import kernels
from fcnlab.core import device
from fcnlab.models import build_model
from fcnlab.models.layers import BilinearUpsampling, NormRelu

WHAT = ("output", "input's gradient", "weights' gradient")


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square of the difference, divided by that of the expected values."""
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def in_mindspore(cell: Any, images: np.ndarray, factors: np.ndarray) -> list[np.ndarray]:
    """Return a cell's output, and the gradients of the sum of output times factors by the input and the weights."""
    weights = cell.trainable_params()[0]

    def total(values: ms.Tensor) -> ms.Tensor:
        return (cell(values) * ms.Tensor(factors)).sum()

    by_input, by_weights = ms.grad(total, 0, [weights])(ms.Tensor(images))
    return [cell(ms.Tensor(images)).asnumpy(), by_input.asnumpy(), by_weights[0].asnumpy()]


def in_pytorch(cell: Any, images: np.ndarray, factors: np.ndarray, dtype: torch.dtype) -> list[np.ndarray]:
    """Compute the same as `in_mindspore` in PyTorch, with the cell's parameters."""
    values = torch.tensor(images, dtype=dtype, requires_grad=True)
    parameters = [torch.tensor(part.asnumpy(), dtype=dtype) for part in cell.trainable_params()]
    weights = parameters[0].requires_grad_()
    if isinstance(cell, NormRelu):
        output = functional.batch_norm(values, None, None, *parameters, training=True, eps=cell.eps)
        output = functional.max_pool2d(functional.relu(output), 2)
    elif isinstance(cell, BilinearUpsampling):
        stride = cell.stride[0]
        output = functional.conv_transpose2d(values, weights, stride=stride, padding=stride // 2)
    else:
        output = functional.conv2d(values, *parameters, padding=weights.shape[-1] // 2)
    (output * torch.tensor(factors, dtype=dtype)).sum().backward()
    return [part.detach().numpy() for part in (output, values.grad, weights.grad)]


def errors(layer: Layer, batch: int) -> dict[str, list[float]]:
    """Return the errors of a layer, of `WHAT` in order, by who computes it."""
    random = np.random.default_rng(0)
    images = random.standard_normal((batch, layer.channels, layer.side, layer.side), dtype=np.float32)
    cell = layer.make().set_train()
    with kernels.stock_operators():
        stock = layer.make().set_train()
    for own, other in zip(cell.get_parameters(), stock.get_parameters(), strict=True):
        if own.ndim == 4 and not isinstance(cell, BilinearUpsampling):  # the others have values
            scale = np.sqrt(2 / np.prod(own.shape[1:]))
            own.set_data(ms.Tensor(scale * random.standard_normal(own.shape), ms.float32))
        other.set_data(ms.Tensor(own.asnumpy()))
    factors = random.standard_normal(cell(ms.Tensor(images)).shape, dtype=np.float32)
    expected = in_pytorch(cell, images, factors, torch.float64)
    found = {
        "fcnlab": in_mindspore(cell, images, factors),
        "MindSpore": in_mindspore(stock, images, factors),
        "PyTorch": in_pytorch(cell, images, factors, torch.float32),
    }
    return {who: [relative_error(*pair) for pair in zip(parts, expected, strict=True)] for who, parts in found.items()}


def untrained(width: float, scores: bool) -> Any:
    """Return FCN-8s with its first weights; the scores, which are 0 then, are random if logits are to be compared."""
    network = build_model("fcn8s", NUM_CLASSES, width=width, dropout=0.0)
    random = np.random.default_rng(2)
    for parameter in network.trainable_params():
        if scores and parameter.name.startswith("score") and parameter.ndim == 4:
            parameter.set_data(ms.Tensor(random.standard_normal(parameter.shape), ms.float32))
    return network


def network_in_pytorch(width: float, dtype: torch.dtype, batch: tuple[np.ndarray, np.ndarray], steps: int) -> Any:
    """Return the logits of FCN-8s and the losses of steps with Adam, computed by PyTorch."""
    images, labels = torch.tensor(batch[0], dtype=dtype), torch.tensor(batch[1]).long()
    scored, network = (FCN(8, NUM_CLASSES, width) for _ in range(2))
    for copy, scores in ((scored, True), (network, False)):
        first = untrained(width, scores)
        copy.copy_weights({part.name: part.asnumpy() for part in first.trainable_params()})
        copy.to(dtype)
    with torch.no_grad():
        logits = scored(images).numpy()
    state = [(parameter, *torch.zeros(2, *parameter.shape, dtype=dtype)) for parameter in network.parameters()]
    losses = []
    for step in range(1, steps + 1):
        network.zero_grad()
        loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        losses.append(loss.item())
        rate = LEARNING_RATE * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        with torch.no_grad():
            for parameter, first, second in state:
                first.lerp_(parameter.grad, 0.1)
                second.lerp_(parameter.grad**2, 0.001)
                parameter -= rate * first / (second.sqrt() + 1e-8)  # not torch.optim's, whose epsilon is elsewhere
    return logits, np.array(losses)


def network_in_mindspore(width: float, batch: tuple[np.ndarray, np.ndarray], steps: int) -> Any:
    """Return the same as `network_in_pytorch`, computed by this package."""
    logits = untrained(width, True).set_train()(ms.Tensor(batch[0])).asnumpy()
    subject = product(Configuration(width=width))
    return logits, np.array([subject.step(*batch) for _ in range(steps)])


def print_layers(width: float, size: int, batch: int) -> None:
    """Print the table of all layers."""
    print("| layer | what | fcnlab | MindSpore | PyTorch |\n|---|---|---|---|---|")
    layers = chain(encoder_layers(width, size), coarse_layers(width, size), upsampling_layers([2], size))
    ratios: list[list[float]] = [[], [], []]
    for layer in layers:
        found = errors(layer, batch)
        for index, what in enumerate(WHAT):
            values = [found[name][index] for name in ("fcnlab", "MindSpore", "PyTorch")]
            ratios[index].append(values[0] / values[2])
            print(f"| {layer.name} | {what} | " + " | ".join(f"{value:.1e}" for value in values) + " |", flush=True)
    medians = ", ".join(f"{what} {np.median(ratio):.1f}" for what, ratio in zip(WHAT, ratios, strict=True))
    print(f"\nfcnlab / PyTorch, medians over the layers: {medians}\n")


def print_network(width: float, size: int, batch: int, steps: int) -> None:
    """Print the table of the whole network."""
    random = np.random.default_rng(1)
    images = random.standard_normal((batch, 3, size, size), dtype=np.float32)
    given = images, (images[:, 0] > 0).astype(np.int32)
    logits, losses = network_in_pytorch(width, torch.float64, given, steps)
    ways: dict[str, Callable[[], Any]] = {
        "fcnlab": lambda: network_in_mindspore(width, given, steps),
        "MindSpore": lambda: network_in_mindspore(width, given, steps),
        "PyTorch": lambda: network_in_pytorch(width, torch.float32, given, steps),
    }
    print(f"| FCN-8s | error of the logits | largest error of the loss in {steps} steps of Adam |")
    print("|---|---|---|")
    for name, compute in ways.items():
        if name == "MindSpore":
            with kernels.stock_operators():
                found = compute()
        else:
            found = compute()
        of_logits, of_loss = relative_error(found[0], logits), np.abs(found[1] - losses).max()
        print(f"| {name} | {of_logits:.1e} | {of_loss:.1e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=float, default=0.25, help="factor on the channels")
    parser.add_argument("--size", type=int, default=128, help="side of an image in pixels")
    parser.add_argument("--batch", type=int, default=2, help="images of a batch")
    parser.add_argument("--steps", type=int, default=20, help="steps of Adam")
    arguments = parser.parse_args()
    device.configure("cpu", "pynative")
    print_layers(arguments.width, arguments.size, arguments.batch)
    print_network(arguments.width, arguments.size, arguments.batch, arguments.steps)


if __name__ == "__main__":
    main()
