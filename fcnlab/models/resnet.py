"""The convolutional part of residual networks (He et al., CVPR 2016, table 1), as torchvision has them."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from mindspore import Tensor, nn

from fcnlab.core.errors import ConfigError
from fcnlab.models.layers import Conv3x3, norm_alone, norm_relu, plain_convolution, zero_pad
from fcnlab.models.vgg import scaled

STAGES = (64, 128, 256, 512)
"""The numbers of channels of the four stages' 3x3 convolutions at width 1."""

EXPANSION = 4
"""By how much the output of a unit with three convolutions has more channels than its 3x3 convolution."""


class ResNetEncoder(nn.Cell):
    """A residual network: a stem and four stages of units, each of which adds its convolutions to its input.

    The stem is a 7x7 convolution of stride 2, whose map before the max-pooling is that of stride 2. The stages' maps
    are those of stride 4, 8, 16 and 32. A unit of a deeper network has its stride at its 3x3 convolution, as in
    torchvision and unlike the paper, where it is at the 1x1 convolution before.

    Since the kernels of the stem are odd, cell i of a map of stride s is centred on pixel s * i.

    Args:
        width: The factor on every number of channels.
        norm: ``"batch"`` or ``"group"`` for that normalisation after each convolution.
        in_channels: The number of the images' channels.
        dilated: Whether the last two stages keep stride 8 and dilate their convolutions instead, by 2 and 4.

    Attributes:
        units: The number of units of each stage.
        bottleneck: Whether a unit has 1x1, 3x3 and 1x1 convolutions rather than two of 3x3.
        channels: See `fcnlab.models.encoders`.
        head_kernel: None: the only dense layer of a residual network is that of the classes.
        reach: See `fcnlab.models.encoders`; None if ``dilated``.

    Inputs:
        N x in_channels x H x W, float32, of any size.

    Outputs:
        The five maps, finest first: N x channels[i] x H / 2**(i+1) x W / 2**(i+1), rounded up, or H / 8 x W / 8 for the
        last three if ``dilated``.

    Raises:
        ConfigError: If ``norm`` is ``"none"``.
    """

    units: ClassVar[tuple[int, ...]]
    bottleneck: ClassVar[bool]
    head_kernel = None

    def __init__(self, width: float = 1.0, norm: str = "batch", in_channels: int = 3, dilated: bool = False) -> None:
        super().__init__()
        if norm == "none":
            raise ConfigError(
                "arch.norm=none: a residual network is not defined without normalisation, since its sums would grow "
                "with each unit; use arch.norm=batch or group, or arch.encoder=vgg16"
            )
        stem = scaled(64, width)
        outputs = [scaled(stage * (EXPANSION if self.bottleneck else 1), width) for stage in STAGES]
        self.channels = [stem, *outputs]
        self.reach = None if dilated else self._reach()
        stages = []
        inputs, dilation = stem, 1
        for number, (count, stage) in enumerate(zip(self.units, STAGES, strict=True)):
            stride = 1 if number == 0 else 2
            cells: OrderedDict[str, nn.Cell] = OrderedDict()
            if number == 0:
                cells["pool"] = StemPool()
            for index in range(1, count + 1):
                halves = index == 1 and stride == 2 and not (dilated and number >= 2)
                # torchvision's first unit of a dilated stage still has the dilation of the stage before.
                cells[f"unit{index}"] = Unit(
                    inputs, scaled(stage, width), outputs[number], norm, self.bottleneck, 2 if halves else 1, dilation
                )
                inputs = outputs[number]
                if index == 1 and dilated and number >= 2:
                    dilation *= 2
            stages.append(nn.SequentialCell(cells))
        self.block1 = nn.SequentialCell(
            OrderedDict(conv1=convolution(in_channels, stem, 7, 2), norm1=norm_relu(norm, stem))
        )
        self.block2, self.block3, self.block4, self.block5 = stages

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return all five maps, finest first."""
        stem = self.block1(images)
        stage1 = self.block2(stem)
        stage2 = self.block3(stage1)
        stage3 = self.block4(stage2)
        stage4 = self.block5(stage3)
        return stem, stage1, stage2, stage3, stage4

    def _reach(self) -> int:
        """Return half of the receptive field of a cell of the coarsest map, from the kernels and strides."""
        reach, step = 3, 2  # the 7x7 convolution of stride 2
        reach, step = reach + step, 2 * step  # the pooling
        for number, count in enumerate(self.units):
            for index in range(count):
                stride = 2 if number > 0 and index == 0 else 1
                reach, step = reach + step, stride * step
                if not self.bottleneck:
                    reach += step
        return reach


class ResNet18Encoder(ResNetEncoder):
    """ResNet-18."""

    units = (2, 2, 2, 2)
    bottleneck = False


class ResNet34Encoder(ResNetEncoder):
    """ResNet-34."""

    units = (3, 4, 6, 3)
    bottleneck = False


class ResNet50Encoder(ResNetEncoder):
    """ResNet-50."""

    units = (3, 4, 6, 3)
    bottleneck = True


class ResNet101Encoder(ResNetEncoder):
    """ResNet-101."""

    units = (3, 4, 23, 3)
    bottleneck = True


class Unit(nn.Cell):
    """Two or three convolutions, each with normalisation, whose result is added to the input (figure 5 of the paper).

    The parameters' cells are ``conv1 norm1 conv2 ...``, and ``conv_shortcut`` and ``norm_shortcut`` for the 1x1
    convolution that the input goes through where its shape differs from the output's.

    Args:
        inputs: The number of channels of the input.
        channels: The number of channels of the 3x3 convolutions.
        outputs: The number of channels of the output.
        norm: ``"batch"`` or ``"group"``.
        bottleneck: Whether there are 1x1, 3x3 and 1x1 convolutions rather than two of 3x3.
        stride: The stride of the (first) 3x3 convolution and of the shortcut.
        dilation: The dilation of the 3x3 convolutions.

    Inputs:
        N x inputs x H x W, float32.

    Outputs:
        N x outputs x H / stride x W / stride, rounded up, float32.
    """

    def __init__(
        self, inputs: int, channels: int, outputs: int, norm: str, bottleneck: bool, stride: int, dilation: int
    ) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        if bottleneck:
            self.conv1 = convolution(inputs, channels, 1)
            self.norm1 = norm_relu(norm, channels)
            self.conv2 = convolution(channels, channels, 3, stride, dilation)
            self.norm2 = norm_relu(norm, channels)
            self.conv3 = convolution(channels, outputs, 1)
            self.norm3 = norm_alone(norm, outputs)
        else:
            self.conv1 = convolution(inputs, channels, 3, stride, dilation)
            self.norm1 = norm_relu(norm, channels)
            self.conv2 = convolution(channels, outputs, 3, 1, dilation)
            self.norm2 = norm_alone(norm, outputs)
        self.projected = stride > 1 or inputs != outputs
        if self.projected:
            self.conv_shortcut = convolution(inputs, outputs, 1, stride)
            self.norm_shortcut = norm_alone(norm, outputs)
        self.relu = nn.ReLU()

    def construct(self, features: Tensor) -> Tensor:
        """Add and rectify."""
        changed = self.norm1(self.conv1(features))
        if self.bottleneck:
            changed = self.norm3(self.conv3(self.norm2(self.conv2(changed))))
        else:
            changed = self.norm2(self.conv2(changed))
        if self.projected:
            features = self.norm_shortcut(self.conv_shortcut(features))
        return self.relu(changed + features)


class StemPool(nn.Cell):
    """The stem's 3x3 max-pooling of stride 2, padded by 1.

    The padding is a layer of its own: with MindSpore's, a graph of unknown height and width loses the rank of the map.

    Inputs:
        N x C x H x W, float32, none of it negative.

    Outputs:
        N x C x H / 2 x W / 2, rounded up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pad = zero_pad(1, 1)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def construct(self, features: Tensor) -> Tensor:
        """Pool."""
        return self.pool(self.pad(features))


def convolution(inputs: int, outputs: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, whose output is as large as its input divided by the stride, rounded up."""
    if (kernel_size, stride, dilation) == (3, 1, 1):
        return Conv3x3(inputs, outputs, has_bias=False)
    return plain_convolution(inputs, outputs, kernel_size, stride, kernel_size // 2 * dilation, dilation=dilation)
