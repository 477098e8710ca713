"""An encoder with a key of its own."""

from dataclasses import dataclass

from mindspore import Tensor, nn

from fcnlab.config.schema import Role, key


@dataclass
class PyramidConfig:
    """The keys of the encoder, which stand below ``arch.pyramid``."""

    kernel: int = key(3, Role.SHAPES_GRAPH | Role.FIXED, minimum=1, maximum=7)


class Pyramid(nn.Cell):
    """A convolution of stride 2 for each map, after which no dense layers follow."""

    Config = PyramidConfig
    head_kernel = None

    def __init__(self, width: float, norm: str, in_channels: int, kernel: int) -> None:
        super().__init__()
        self.channels = [max(1, round(width * full)) for full in (16, 32, 64, 64, 64)]
        self.reach = 31 * (kernel - 1)
        layers = []
        for before, after in zip([in_channels, *self.channels[:-1]], self.channels, strict=True):
            layers.append(nn.Conv2d(before, after, kernel, 2, pad_mode="same", has_bias=True))
        self.layers = nn.CellList(layers)
        self.relu = nn.ReLU()

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = ()
        features = images
        for layer in self.layers:
            features = self.relu(layer(features))
            maps = (*maps, features)
        return maps
