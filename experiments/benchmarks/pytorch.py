"""The same network in PyTorch (the optional extra ``benchmark``), with the product's own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class FCN8s(nn.Module):
    """FCN-8s of `fcnlab.models`, dropout aside."""

    def __init__(self, num_classes: int, width: float) -> None:
        super().__init__()
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
        self.score_pool4, self.score_pool3 = nn.Conv2d(pools[3], num_classes, 1), nn.Conv2d(pools[2], num_classes, 1)
        double = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
        self.upsample_pool4 = nn.ConvTranspose2d(num_classes, num_classes, **double)
        self.upsample_pool3 = nn.ConvTranspose2d(num_classes, num_classes, **double)
        self.upsample = nn.ConvTranspose2d(num_classes, num_classes, 16, 8, 4, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        pools, features = [], images
        for block in self.blocks:
            features = block(features)
            pools.append(features)
        features = self.fc7(self.fc6(features).relu_()).relu_()
        score = self.upsample_pool4(self.score(features)) + self.score_pool4(pools[3])
        return self.upsample(self.upsample_pool3(score) + self.score_pool3(pools[2]))

    def copy_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the weights of an `fcnlab.models.FCN`; both name their layers in the same order.

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


def build_step(network: FCN8s, learning_rate: float) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Eager, with the fused Adam: the fastest of what PyTorch offers on a CPU here (see the README)."""
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)

    def step(images: torch.Tensor, labels: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels, ignore_index=255)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
