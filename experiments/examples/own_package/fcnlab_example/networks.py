"""An architecture that shares no key with this project's own."""

from dataclasses import dataclass

from mindspore import Tensor, nn


@dataclass
class StackConfig:
    """The keys of the architecture, in a class that derives from none and has no width, norm or dropout."""

    depth: int = 2
    channels: int = 8


class Stack(nn.Cell):
    """A stack of 3x3 convolutions at full resolution."""

    Config = StackConfig

    def __init__(self, num_classes: int, seed: int, depth: int, channels: int, in_channels: int = 3) -> None:
        super().__init__()
        layers = []
        for index in range(depth):
            layers += [nn.Conv2d(in_channels if index == 0 else channels, channels, 3, has_bias=True), nn.ReLU()]
        self.body = nn.SequentialCell(layers)
        self.head = nn.Conv2d(channels, num_classes, 1, has_bias=True)

    def construct(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))
