"""The convolutional part of the VGG networks (Simonyan & Zisserman, ICLR 2015, table 1, columns A, B, D and E)."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

from mindspore import Tensor, nn

from fcnlab.models.layers import CeilMaxPool2d, Conv3x3, ConvolutionBlock, norm_relu

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""The number of VGG-16's 3x3 convolutions of each block, and the number of their output channels at width 1."""


def scaled(channels: int, width: float) -> int:
    """Return ``channels`` times ``width``, rounded, but at least 1."""
    return max(1, round(channels * width))


def vgg_block(
    in_channels: int, out_channels: int, convolutions: int, norm: str, published: bool = False
) -> nn.SequentialCell:
    """Return ``convolutions`` times 3x3 convolution, normalisation (if any) and ReLU, followed by 2x2 max-pooling.

    The cells are named ``conv1 norm1 conv2 ...`` with normalisation, ``conv1 relu1 conv2 ... pool`` without. Pooling
    rounds an odd size up if the block is as published.
    """
    cells: OrderedDict[str, nn.Cell] = OrderedDict()
    for index in range(1, convolutions + 1):
        # A bias would be subtracted by batch norm again.
        cells[f"conv{index}"] = Conv3x3(in_channels, out_channels, has_bias=norm == "none")
        if norm == "none":
            cells[f"relu{index}"] = nn.ReLU()
        else:
            cells[f"norm{index}"] = norm_relu(norm, out_channels, pool=index == convolutions)
        in_channels = out_channels
    if norm == "none":
        cells["pool"] = CeilMaxPool2d(2) if published else nn.MaxPool2d(kernel_size=2, stride=2)
    return ConvolutionBlock(cells)


class VGGEncoder(nn.Cell):
    """A VGG: 3x3 convolutions in five blocks, each block halving the resolution.

    The published FCNs pad the first convolution by 100 pixels, which is a padding of the image by 99. Of these, 64 are
    two cells of the coarsest map, and the remaining 35 are cropped off the logits.

    Args:
        width: The factor on every number of channels.
        norm: ``"batch"`` or ``"group"`` for that normalisation after each convolution, ``"none"`` for VGG as published.
        in_channels: The number of the images' channels.
        published: Whether to pool odd sizes, too, as VGG without batch normalisation does in the published networks.

    Attributes:
        depths: The number of 3x3 convolutions of each block.
        channels: The numbers of channels of the five pooled maps.
        head_kernel: See `fcnlab.models.encoders`.
        reach: See there: each convolution sees one pixel of its own map further.
        upsampling_kernel: The side of the kernel of the published 32-fold upsampling.
        padding: The pixels by which the published networks pad an image on each side.
        crop: The pixels by which they crop the logits at the top and on the left, where each side of the score map has
            one more cell.

    Inputs:
        N x in_channels x H x W, float32, H and W multiples of 32 unless ``published``.

    Outputs:
        The five pooled maps, finest first: N x channels[i] x H / 2**(i+1) x W / 2**(i+1), rounded up.
    """

    depths: ClassVar[tuple[int, ...]]
    head_kernel = 7
    upsampling_kernel = 64
    padding = 99
    crop = 35

    @staticmethod
    def coarsest(length: int) -> int:
        """Return the length of the coarsest map of an image of a length."""
        return -(-length // 2 ** len(BLOCKS))

    def __init__(self, width: float = 1.0, norm: str = "batch", in_channels: int = 3, published: bool = False) -> None:
        super().__init__()
        self.channels = [scaled(channels, width) for _, channels in BLOCKS]
        self.reach = sum(count * 2**block for block, count in enumerate(self.depths))
        self.block1 = vgg_block(in_channels, self.channels[0], self.depths[0], norm, published)
        self.block2 = vgg_block(self.channels[0], self.channels[1], self.depths[1], norm, published)
        self.block3 = vgg_block(self.channels[1], self.channels[2], self.depths[2], norm, published)
        self.block4 = vgg_block(self.channels[2], self.channels[3], self.depths[3], norm, published)
        self.block5 = vgg_block(self.channels[3], self.channels[4], self.depths[4], norm, published)

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return all five pooled maps, finest first."""
        pool1 = self.block1(images)
        pool2 = self.block2(pool1)
        pool3 = self.block3(pool2)
        pool4 = self.block4(pool3)
        pool5 = self.block5(pool4)
        return pool1, pool2, pool3, pool4, pool5


class VGG11Encoder(VGGEncoder):
    """VGG-11, column A of the table."""

    depths = (1, 1, 2, 2, 2)


class VGG13Encoder(VGGEncoder):
    """VGG-13, column B of the table."""

    depths = (2, 2, 2, 2, 2)


class VGG16Encoder(VGGEncoder):
    """VGG-16, column D of the table, from which the paper's networks are made."""

    depths = tuple(convolutions for convolutions, _ in BLOCKS)


class VGG19Encoder(VGGEncoder):
    """VGG-19, column E of the table."""

    depths = (2, 2, 4, 4, 4)
