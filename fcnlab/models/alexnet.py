"""The convolutional part of AlexNet (Krizhevsky, Sutskever & Hinton, NIPS 2012) as FCN's authors use it."""

from __future__ import annotations

from collections import OrderedDict

from mindspore import Tensor, nn

from fcnlab.models.layers import CeilMaxPool2d, plain_convolution, zero_pad
from fcnlab.models.vgg import scaled


class AlexNetEncoder(nn.Cell):
    """Five convolutions in three blocks, each of which ends with 3x3 max-pooling of stride 2.

    The numbers of channels are 96, 256, 384, 384 and 256 at width 1. The second, fourth and fifth convolution have two
    groups; response normalisation follows the first two poolings.

    Source: ``voc-fcn-alexnet`` of https://github.com/shelhamer/fcn.berkeleyvision.org.

    Args:
        width: The factor on every number of channels, which stays even.
        norm: ``"none"``; AlexNet has no batch normalisation.
        in_channels: The number of the images' channels.
        published: True; there is no other form of this encoder.

    Attributes:
        channels: The numbers of channels of the three pooled maps.
        head_kernel: As in `fcnlab.models.vgg.VGGEncoder`, like the next four.
        reach: See there.
        upsampling_kernel: See there.
        padding: See there.
        crop: See there.

    Inputs:
        N x in_channels x H x W, float32.

    Outputs:
        The three pooled maps, at strides 8, 16 and 32; `coarsest` gives the size of the last.
    """

    head_kernel = 6
    reach = 68
    upsampling_kernel = 63
    padding = 100
    crop = 34

    def __init__(self, width: float = 1.0, norm: str = "none", in_channels: int = 3, published: bool = True) -> None:
        super().__init__()
        if norm != "none" or not published:
            raise ValueError("AlexNet comes without batch normalisation, and as it was published")
        first, second, third, fourth, fifth = (2 * scaled(half, width) for half in (48, 128, 192, 192, 128))
        self.channels = [first, second, fifth]
        self.block1 = block([convolution(in_channels, first, 11, stride=4)], normalised=True)
        self.block2 = block([convolution(first, second, 5, group=2)], normalised=True)
        self.block3 = block(
            [
                convolution(second, third, 3),
                convolution(third, fourth, 3, group=2),
                convolution(fourth, fifth, 3, group=2),
            ],
            normalised=False,
        )

    @staticmethod
    def coarsest(length: int) -> int:
        """Return the length of the coarsest map of an image of a length."""
        return ((length - 11) // 4 + 1) // 8

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three pooled maps, finest first."""
        pool1 = self.block1(images)
        pool2 = self.block2(pool1)
        pool5 = self.block3(pool2)
        return pool1, pool2, pool5


class ResponseNorm(nn.Cell):
    """Local response normalisation over five channels, with Caffe's constants.

    Inputs:
        x of N x C x H x W, float32.

    Outputs:
        x / (1 + 1e-4 / 5 * s) ** 0.75, where s is the sum of squares over two channels on either side, as large as x.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pad = zero_pad(0, 0, channels=2)

    def construct(self, features: Tensor) -> Tensor:
        """Normalise."""
        channels = features.shape[1]
        squares = self.pad(features * features)
        total = squares[:, :channels]
        for shift in range(1, 5):
            total = total + squares[:, shift : shift + channels]
        return features * (1 + 2e-5 * total) ** -0.75


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, group: int = 1) -> nn.Conv2d:
    """Return a convolution with bias, whose output is as large as its input if it has no stride."""
    padding = kernel_size // 2 if stride == 1 else 0
    return plain_convolution(in_channels, out_channels, kernel_size, stride, padding, group=group, has_bias=True)


def block(convolutions: list[nn.Conv2d], normalised: bool) -> nn.SequentialCell:
    """Return convolutions with ReLU, followed by pooling and perhaps response normalisation.

    The cells are named ``conv1 relu1 conv2 ... pool norm``.
    """
    cells: OrderedDict[str, nn.Cell] = OrderedDict()
    for index, layer in enumerate(convolutions, 1):
        cells[f"conv{index}"] = layer
        cells[f"relu{index}"] = nn.ReLU()
    cells["pool"] = CeilMaxPool2d(3)
    if normalised:
        cells["norm"] = ResponseNorm()
    return nn.SequentialCell(cells)
