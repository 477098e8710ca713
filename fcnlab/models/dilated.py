"""The fully convolutional networks of torchvision: a dilated ResNet of output stride 8 and a small head."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import numpy as np
from mindspore import Tensor, nn, ops

from fcnlab.models.fcn import DropoutNetwork, check_arguments, draw_masks, initialise, score_layer
from fcnlab.models.layers import norm_relu
from fcnlab.models.resnet import ResNet50Encoder, ResNet101Encoder, ResNetEncoder, convolution
from fcnlab.models.vgg import scaled


class DilatedFCN(DropoutNetwork):
    """A dilated ResNet, a 3x3 convolution, class scores at 1/8 of the resolution, and bilinear interpolation.

    There are no skips. Unlike an `FCN`, it takes an image as it is, and interpolates the scores to the image's size
    without learning to: the corners of both are aligned, not the centres of their corner pixels.

    Source: ``fcn_resnet50`` and ``fcn_resnet101`` of torchvision, without their auxiliary classifier, which takes part
    in training alone.

    Args:
        encoder: The class of the encoder.
        num_classes: The number of classes C, at least 2.
        width: The factor on every number of hidden channels; 1 is torchvision's network.
        norm: ``"batch"``, or ``"group"`` for group normalisation in its place.
        dropout: The probability with which an activation of the head is dropped in training.
        seed: The seed of the initial weights.
        in_channels: The number of the images' channels; 3 is RGB.

    Attributes:
        stride: The distance of two scores in pixels.
        published: True: the network computes an image at its own size.

    Inputs:
        - **images** - N x in_channels x H x W, float32, any H and W from 32 up.
        - **masks** - The mask that `dropout_masks` has drawn.

    Outputs:
        Logits, N x C x H x W, float32.

    Raises:
        ConfigError: If an argument is out of range.
        ValueError: If an image is smaller than 32 pixels (on a call).
    """

    stride = 8
    published = True

    def __init__(
        self,
        encoder: type[ResNetEncoder],
        num_classes: int,
        width: float = 1.0,
        norm: str = "batch",
        dropout: float = 0.1,
        seed: int = 0,
        in_channels: int = 3,
    ) -> None:
        check_arguments(self.stride, num_classes, width, norm, dropout, seed, in_channels)
        super().__init__(dropout)
        self.num_classes = num_classes
        self.encoder = encoder(width, norm, in_channels, dilated=True)
        self.hidden = scaled(512, width)
        self.head = nn.SequentialCell(
            OrderedDict(
                conv1=convolution(self.encoder.channels[-1], self.hidden, 3),
                norm1=norm_relu(norm, self.hidden),
            )
        )
        self.score = score_layer(self.hidden, num_classes)
        self.upsample = BilinearResize()
        initialise(self, seed)

    def dropout_masks(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray | None:
        """Draw which activations of the head a training step keeps: see `fcnlab.models.FCN.dropout_masks`.

        Args:
            shape: The shape of the step's images.
            generator: The source of all randomness.

        Returns:
            The mask, 1 x N x channels x H / 8 x W / 8 (rounded up) bool; None without dropout.
        """
        batch, _, height, width = shape
        cells = (-(-height // self.stride), -(-width // self.stride))
        return draw_masks((1, batch, self.hidden, *cells), self.dropout, generator)

    def construct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the logits of every pixel."""
        features = self._drop(self.head(self.encoder(images)[-1]), masks, 0)
        return self.upsample(self.score(features), images)


class BilinearResize(nn.Cell):
    """Bilinear interpolation to the size of another map, whose corners are aligned with the map's.

    It is a product with a matrix for each axis, whose rows weigh the two nearest cells: MindSpore's own operator takes
    no size that is unknown when a graph is compiled. Beyond the centres of the outermost cells, these are repeated.

    Inputs:
        - **values** - N x C x h x w, float32.
        - **like** - N x D x H x W, of which only the size is used.

    Outputs:
        N x C x H x W, float32.
    """

    def construct(self, values: Tensor, like: Tensor) -> Tensor:
        """Interpolate."""
        rows = _weights(values[0, 0, :, 0], like[0, 0, :, 0])
        columns = _weights(values[0, 0, 0], like[0, 0, 0])
        return ops.matmul(rows, ops.matmul(values, columns.T))


def _weights(source: Tensor, target: Tensor) -> Tensor:
    """Return the weights of the cells of one axis for each pixel of another one, target x source."""
    # Numbers that a running sum makes need no size when the graph is compiled.
    cells = ops.cumsum(ops.ones_like(source), 0) - 1
    pixels = ops.cumsum(ops.ones_like(target), 0) - 0.5
    scale = (cells[-1] + 1) / (pixels[-1] + 0.5)
    places = ops.minimum(ops.maximum(pixels * scale - 0.5, cells[0]), cells[-1])
    return ops.maximum(1 - ops.abs(places.reshape(-1, 1) - cells.reshape(1, -1)), ops.zeros_like(cells[0]))


fcn_resnet50 = partial(DilatedFCN, ResNet50Encoder)
fcn_resnet101 = partial(DilatedFCN, ResNet101Encoder)
