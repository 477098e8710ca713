"""The convolutional part of AlexNet in one tower, as torchvision has it."""

from __future__ import annotations

from collections import OrderedDict

from mindspore import Tensor, nn

from fcnlab.models.layers import Conv3x3, ConvolutionBlock, norm_relu, plain_convolution, zero_pad
from fcnlab.models.vgg import scaled


class OneTowerAlexNetEncoder(nn.Cell):
    """Five convolutions of 64, 192, 384, 256 and 256 channels at width 1, without groups and response normalisation.

    It is another network than the published `fcnlab.models.alexnet.AlexNetEncoder`. Its first convolution has stride 4,
    so that there is no map of stride 2; the map of stride 4 is that of the first convolution, and those of strides 8,
    16 and 32 are pooled by 3x3 windows of stride 2.

    The poolings are not padded, so that an image of 32 n pixels would have n - 1 cells of stride 32. It is padded by 31
    zeros at the top and on the left for the missing cell. The maps are those of torchvision's network on the image that
    is padded in this way, but for the cells on top and on the left of the finer maps that are more than 32 / stride
    for each of the coarsest. Cell i of a map of stride s is then centred on pixel s * i, and what the 6x6 kernel of fc6
    sees, on the middle of its cell.

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, footnote 1.

    Args:
        width: The factor on every number of channels.
        norm: ``"batch"`` or ``"group"`` for that normalisation after each convolution, ``"none"`` as published.
        in_channels: The number of the images' channels.

    Attributes:
        channels: The numbers of channels of the four maps.
        head_kernel: See `fcnlab.models.encoders`.
        reach: See there: half of the receptive field of 195 pixels, on the left.

    Inputs:
        N x in_channels x H x W, float32, H and W multiples of 32.

    Outputs:
        The four maps at strides 4, 8, 16 and 32.
    """

    head_kernel = 6
    reach = 97

    def __init__(self, width: float = 1.0, norm: str = "none", in_channels: int = 3) -> None:
        super().__init__()
        first, second, third, fourth = (scaled(channels, width) for channels in (64, 192, 384, 256))
        self.channels = [first, first, second, fourth]
        has_bias = norm == "none"
        self.pad = zero_pad(31, 0)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.block1 = layers(norm, [plain_convolution(in_channels, first, 11, 4, 2, has_bias=has_bias)])
        self.block2 = layers(norm, [plain_convolution(first, second, 5, 1, 2, has_bias=has_bias)])
        self.block3 = layers(
            norm,
            [
                Conv3x3(second, third, has_bias),
                Conv3x3(third, fourth, has_bias),
                Conv3x3(fourth, fourth, has_bias),
            ],
        )

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four maps, finest first."""
        first = self.block1(self.pad(images))
        pool1 = self.pool(first)
        pool2 = self.pool(self.block2(pool1))
        pool5 = self.pool(self.block3(pool2))
        return first[:, :, 7:, 7:], pool1[:, :, 3:, 3:], pool2[:, :, 1:, 1:], pool5


def layers(norm: str, convolutions: list[nn.Conv2d]) -> nn.SequentialCell:
    """Return convolutions with normalisation, if any, and ReLU, named ``conv1 norm1 conv2 ...`` or ``conv1 relu1``."""
    cells: OrderedDict[str, nn.Cell] = OrderedDict()
    for index, layer in enumerate(convolutions, 1):
        cells[f"conv{index}"] = layer
        if norm == "none":
            cells[f"relu{index}"] = nn.ReLU()
        else:
            cells[f"norm{index}"] = norm_relu(norm, layer.out_channels)
    return ConvolutionBlock(cells)
