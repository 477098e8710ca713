"""The same network in PyTorch (the optional extra ``benchmark``), with the product's own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class FCN(nn.Module):
    """The FCN-32s, 16s or 8s of `fcnlab.models` without dropout."""

    def __init__(self, stride: int, num_classes: int, width: float) -> None:
        super().__init__()
        self.stride = stride
        inputs, pools, self.blocks = 3, [], nn.ModuleList()
        for repeats, full in BLOCKS:
            outputs, cells = max(1, round(full * width)), []
            for _ in range(repeats):
                convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
                cells += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
            self.blocks.append(nn.Sequential(*cells, nn.MaxPool2d(2)))
            pools.append(outputs)
        hidden = max(1, round(4096 * width))
        self.fc6, self.fc7 = nn.Conv2d(inputs, hidden, 7, padding=3), nn.Conv2d(hidden, hidden, 1)
        self.score = nn.Conv2d(hidden, num_classes, 1)
        double = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
        if stride <= 16:
            self.score_pool4 = nn.Conv2d(pools[3], num_classes, 1)
            self.upsample_pool4 = nn.ConvTranspose2d(num_classes, num_classes, **double)
        if stride <= 8:
            self.score_pool3 = nn.Conv2d(pools[2], num_classes, 1)
            self.upsample_pool3 = nn.ConvTranspose2d(num_classes, num_classes, **double)
        self.upsample = nn.ConvTranspose2d(num_classes, num_classes, 2 * stride, stride, stride // 2, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits."""
        pools, features = [], images
        for block in self.blocks:
            features = block(features)
            pools.append(features)
        score = self.score(self.fc7(self.fc6(features).relu_()).relu_())
        if self.stride <= 16:
            score = self.upsample_pool4(score) + self.score_pool4(pools[3])
        if self.stride <= 8:
            score = self.upsample_pool3(score) + self.score_pool3(pools[2])
        return self.upsample(score)

    def copy_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy the weights of an `fcnlab.models.FCN`; both name their layers in the same order.

        Raises:
            ValueError: If the two do not have the same parameters.
        """
        own = dict(self.named_parameters())
        for name, array in arrays.items():
            parts = name.split(".")
            if parts[0] == "encoder":
                block, layer = int(parts[1].removeprefix("block")) - 1, parts[2]
                offset = 3 * (int(layer[-1]) - 1) + layer.startswith("norm")
                parts = ["blocks", str(block), str(offset), {"gamma": "weight", "beta": "bias"}.get(parts[3], parts[3])]
            parameter = own.pop(".".join(parts))
            if tuple(parameter.shape) != array.shape:
                raise ValueError(f"{name}: {tuple(parameter.shape)} in PyTorch, {array.shape} in fcnlab")
            parameter.data.copy_(torch.from_numpy(array))
        if own:
            raise ValueError(f"only in PyTorch: {', '.join(own)}")


class Variant(NamedTuple):
    """A way to run PyTorch."""

    compiled: bool
    channels_last: bool
    fused: bool

    @classmethod
    def parse(cls, name: str) -> Variant:
        """Parse a name such as ``eager``, ``compile+channels_last`` or ``eager+plain_adam``."""
        words = name.split("+")
        return cls("compile" in words, "channels_last" in words, "plain_adam" not in words)


def prepare(network: FCN, variant: Variant) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
    """Return the network as it is called, and the function that its images must pass first."""
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    callable_network = torch.compile(network) if variant.compiled else network
    return callable_network, lambda images: images.contiguous(memory_format=layout)


def build_step(
    network: FCN, learning_rate: float, variant: Variant, *, autocast: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Return a training step with Adam, whose network computes in bfloat16 if asked for."""
    called, arrange = prepare(network, variant)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=variant.fused)

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(called(arrange(images)), labels, ignore_index=255)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
