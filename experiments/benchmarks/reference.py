"""The reference of `train_step.py`: FCN-8s and its training step in the fewest lines, of stock MindSpore parts.

Only fc6 and fc7 are unfold + matrix product, without which MindSpore 2.8's weight gradient takes 15 to 43 s.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops


class UnfoldConv2d(nn.Cell):
    """A convolution as im2col and matrix product."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.shape = shape
        self.weight = Parameter(Tensor(0.01 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)))
        self.bias = Parameter(Tensor(np.zeros((1, out_channels, 1, 1), np.float32)))

    def construct(self, features: Tensor) -> Tensor:
        """Convolve."""
        batch, _, height, width = features.shape
        outputs, inputs, size, _ = self.shape
        if size > 1:
            features = ops.unfold(features, size, 1, size // 2, 1)
        patches = features.reshape(batch, inputs * size * size, height * width).transpose(1, 0, 2)
        product = ops.matmul(self.weight.reshape(outputs, -1), patches.reshape(inputs * size * size, -1))
        return product.reshape(outputs, batch, height, width).transpose(1, 0, 2, 3) + self.bias


class FCN8s(nn.Cell):
    """VGG-16 with batch norm, fc6 and fc7, fusions at 1/16 and 1/8."""

    def __init__(self, num_classes: int, width: float) -> None:
        super().__init__()
        channels = [max(1, round(width * full)) for full in (64, 128, 256, 512, 512)]
        hidden = max(1, round(width * 4096))
        inputs, blocks = 3, []
        for outputs, repeats in zip(channels, (2, 2, 3, 3, 3), strict=True):
            cells = []
            for _ in range(repeats):
                convolution = nn.Conv2d(inputs, outputs, 3, pad_mode="pad", padding=1)
                cells += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            blocks.append(nn.SequentialCell([*cells, nn.MaxPool2d(2, 2)]))
        self.blocks = nn.CellList(blocks)
        self.head = nn.SequentialCell(
            UnfoldConv2d(inputs, hidden, 7), nn.ReLU(), UnfoldConv2d(hidden, hidden, 1), nn.ReLU()
        )
        self.score = nn.Conv2d(hidden, num_classes, 1, has_bias=True)
        self.score_pool4 = nn.Conv2d(channels[3], num_classes, 1, has_bias=True)
        self.score_pool3 = nn.Conv2d(channels[2], num_classes, 1, has_bias=True)
        self.double = nn.Conv2dTranspose(num_classes, num_classes, 4, 2, pad_mode="pad", padding=1)
        self.double_again = nn.Conv2dTranspose(num_classes, num_classes, 4, 2, pad_mode="pad", padding=1)
        self.upsample = nn.Conv2dTranspose(num_classes, num_classes, 16, 8, pad_mode="pad", padding=4)

    def construct(self, images: Tensor) -> Tensor:
        """Compute the logits."""
        pools = []
        features = images
        for block in self.blocks:
            features = block(features)
            pools.append(features)
        score = self.double(self.score(self.head(features))) + self.score_pool4(pools[3])
        score = self.double_again(score) + self.score_pool3(pools[2])
        return self.upsample(score)


class Loss(nn.Cell):
    """The network and `ops.cross_entropy`."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__()
        self.network = network

    def construct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss."""
        return ops.cross_entropy(self.network(images), labels, ignore_index=255)


def build_step(network: FCN8s, learning_rate: float) -> nn.Cell:
    """Return a step that takes images and labels, updates the weights and returns the loss."""
    return nn.TrainOneStepCell(Loss(network), nn.Adam(network.trainable_params(), learning_rate)).set_train()
