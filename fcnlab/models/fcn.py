"""Fully convolutional networks for semantic segmentation (Long, Shelhamer & Darrell, CVPR 2015; PAMI 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import functional as F

from fcnlab.core.errors import ConfigError
from fcnlab.models.alexnet import AlexNetEncoder
from fcnlab.models.encoders import build_encoder
from fcnlab.models.layers import BilinearUpsampling, HeadConv2d, zero_pad
from fcnlab.models.vgg import VGG16Encoder, scaled

STRIDES = (32, 16, 8, 4, 2)
"""The prediction strides: 32 to 8 are the paper's, 4 and 2 continue its fusions with pool2 and pool1."""

NORMS = ("batch", "sync_batch", "group", "none")

GRID = 32
"""The distance between two cells of the coarsest map, in pixels."""

MINIMUM_SIZE = 32
"""The smallest side of an image in pixels, since five poolings halve it five times."""


class DropoutNetwork(nn.Cell):
    """What all networks share: they refuse images that are too small, and a training can draw what they drop.

    Args:
        dropout: The probability with which an activation is dropped in training.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = float(dropout)
        self.kept_scale = 1 / (1 - float(dropout))

    def __call__(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Check the size, then run ``construct``."""
        check_size(images)
        return super().__call__(images) if masks is None else super().__call__(images, masks)

    def _drop(self, features: Tensor, masks: Tensor | None, layer: int) -> Tensor:
        if masks is None and (not self.training or self.dropout == 0):
            return features
        if masks is None:
            # `nn.Dropout` would have a random seed of its own, even in a graph that draws nothing.
            return ops.dropout(features, self.dropout)
        return features * (masks[layer].astype(mstype.float32) * self.kept_scale)


class FCN(DropoutNetwork):
    """A classifier, VGG-16 by default, turned into a fully convolutional network with skip fusions down to a stride.

    The network scores the classes at 1/32 of the resolution. With stride s it then doubles the score map log2(32 / s)
    times, adds each time the scores of the pooled map at that resolution, and upsamples s-fold in the end. All
    upsampling is a learnable transposed convolution that is bilinear at first.

    Where the classifier has no hidden dense layers (`fcnlab.models.encoders`), there are neither fc6 nor fc7, and the
    classes are scored on the encoder's coarsest map.

    The networks that the authors published meet the border of an image in another way, and do not learn to upsample:
    the image is padded by as many pixels as `VGGEncoder.padding` says, fc6 sees no further padding, and the maps are
    cropped so that their cells lie over one another and over the image.

    Source: CVPR 2015, sections 4.1 (fc6, fc7 as convolutions, score layers of zeros) and 4.2 (fusion), figure 3.

    Args:
        stride: The stride of the finest map that is scored: 32, 16, 8, 4 or 2.
        num_classes: The number of classes C, at least 2.
        width: The factor on every number of hidden channels; 1 is the real network.
        norm: ``"batch"`` or ``"group"`` for that normalisation in the encoder, ``"none"`` for the network as published.
        dropout: The probability with which an activation of fc6 and fc7 is dropped in training; without these, one of
            the coarsest map.
        seed: The seed of the initial weights. The same seed gives every stride the same encoder, fc6 and fc7.
        in_channels: The number of the images' channels; 3 is RGB.
        encoder: The name of the encoder, or the class of a published network's: `VGG16Encoder` or, with stride 32,
            `AlexNetEncoder`.
        encoder_options: The keys of the encoder's own.
        published: Whether to pad, to crop and to keep the upsampling fixed as the authors' networks do.
        pool_scales: The factors, by the number of the pooling, on what the skips score; 1 by default. They are fixed
            parameters. The authors' FCN-8s that is trained at once scales pool4 by 0.01 and pool3 by 0.0001.

    Inputs:
        - **images** - N x in_channels x H x W, float32, any H and W from 32 up.
        - **masks** - The masks that `dropout_masks` has drawn, for a training that can be resumed to the bit. Without
          them, MindSpore draws masks from a state that cannot be saved.

    Outputs:
        Logits, N x C x H x W, float32.

    Raises:
        ConfigError: If an argument is out of range.
        ValueError: If an image is smaller than 32 pixels (on a call).
    """

    def __init__(
        self,
        stride: int,
        num_classes: int,
        width: float = 1.0,
        norm: str = "batch",
        dropout: float = 0.5,
        seed: int = 0,
        in_channels: int = 3,
        *,
        encoder: str | type[VGG16Encoder | AlexNetEncoder] = "vgg16",
        encoder_options: Mapping[str, Any] | None = None,
        published: bool = False,
        pool_scales: Mapping[int, float] | None = None,
    ) -> None:
        check_arguments(stride, num_classes, width, norm, dropout, seed, in_channels)
        super().__init__(dropout)
        self.stride = stride
        self.num_classes = num_classes
        self.norm = norm
        self.published = published
        self.encoder_name = encoder if isinstance(encoder, str) else ""
        if isinstance(encoder, str):
            self.encoder = build_encoder(encoder, width, norm, in_channels, encoder_options)
        else:
            self.encoder = encoder(width, norm, in_channels, published)
        channels = self.encoder.channels
        finest = GRID >> len(channels) - 1
        if stride < finest:
            raise ConfigError(
                f"arch.stride={stride}: arch.encoder={encoder} has no map of stride {stride}, its finest is that of "
                f"{finest}; use arch=fcn{finest}s or a coarser one"
            )
        if published:
            self.pad = zero_pad(self.encoder.padding, self.encoder.padding)
            self.pad_score = zero_pad(1, 1)
        self.head_kernel = getattr(self.encoder, "head_kernel", 7)
        self.dense = self.head_kernel is not None
        hidden = scaled(4096, width) if self.dense else channels[-1]
        if self.dense:
            self.fc6 = HeadConv2d(channels[-1], hidden, self.head_kernel, padded=not published)
            self.fc7 = HeadConv2d(hidden, hidden, 1)
        self.hidden = hidden
        self.relu = nn.ReLU()
        self.score = score_layer(hidden, num_classes)

        if stride <= 16:
            self.score_pool4 = score_layer(channels[-2], num_classes)
            self.upsample_pool4 = BilinearUpsampling(num_classes, 2)
        if stride <= 8:
            self.score_pool3 = score_layer(channels[-3], num_classes)
            self.upsample_pool3 = BilinearUpsampling(num_classes, 2)
        if stride <= 4:
            self.score_pool2 = score_layer(channels[-4], num_classes)
            self.upsample_pool2 = BilinearUpsampling(num_classes, 2)
        if stride <= 2:
            self.score_pool1 = score_layer(channels[-5], num_classes)
            self.upsample_pool1 = BilinearUpsampling(num_classes, 2)
        kernel_size = self.encoder.upsampling_kernel if published and stride == 32 else None
        self.upsample = BilinearUpsampling(num_classes, stride, kernel_size)
        self.scaled = tuple(pool_scales or ())
        for pool, scale in (pool_scales or {}).items():
            values = np.full(channels[pool - 6], scale, np.float32)
            setattr(self, f"scale_pool{pool}", Parameter(Tensor(values), requires_grad=False))

        initialise(self, seed)
        if published:
            for parameter in self.trainable_params():
                parameter.requires_grad = not parameter.name.startswith("upsample")

    @property
    def reach(self) -> int | None:
        """By how many pixels what a cell of the coarsest map sees exceeds the cell.

        It is None where it is not known, and with group normalisation, whose result depends on the whole image.
        """
        return None if self.norm == "group" else getattr(self.encoder, "reach", None)

    def dropout_masks(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray | None:
        """Draw which activations of fc6 and fc7, or of the coarsest map without these, a training step keeps.

        Args:
            shape: The shape of the step's images.
            generator: The source of all randomness.

        Returns:
            The masks of fc6 and fc7, 2 x N x channels x H / 32 x W / 32 bool (or as large as the map of a published
            network), each true with probability 1 - dropout (to 1/65536); None without dropout. Without fc6 and fc7,
            there is one mask rather than two.
        """
        batch, _, height, width = shape
        masks = (2 if self.dense else 1, batch, self.hidden, self.score_cells(height), self.score_cells(width))
        return draw_masks(masks, self.dropout, generator)

    def score_cells(self, length: int) -> int:
        """Return the length of the coarsest score map of an image of a length."""
        if self.published:
            return self.encoder.coarsest(length + 2 * self.encoder.padding) - self.fc6.lost
        return -(-length // GRID)

    def construct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the logits of every pixel."""
        height = images.shape[2]
        width = images.shape[3]
        if self.published:
            crop = self.encoder.crop
            return self.padded_logits(self.pad(images), masks)[:, :, crop : crop + height, crop : crop + width]
        # Fusions need maps that match, so the images are padded to a multiple of 32 and the logits cropped. Only the
        # right and the bottom are padded, so that the grid of the poolings stays anchored to the image's origin; the
        # padding is 0, the mean colour of a normalised image. A size that fits and is known when the graph is compiled
        # needs neither copy; an unknown one would need a branch at run time.
        if F.isconstant(height) and F.isconstant(width) and height % 32 == 0 and width % 32 == 0:
            return self.padded_logits(images, masks)
        images = ops.pad(images, (0, (-width) % 32, 0, (-height) % 32))
        return self.padded_logits(images, masks)[:, :, :height, :width]

    def padded_logits(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the logits of padded images: of images whose sides are multiples of 32, or as `construct` pads."""
        pools = self.encoder(images)
        features = pools[-1]
        if self.dense:
            features = self._drop(self.relu(self.fc6(features)), masks, 0)
            features = self._drop(self.relu(self.fc7(features)), masks, 1)
        else:
            features = self._drop(features, masks, 0)
        score = self.score(features)
        if self.published:
            # What is upsampled then reaches as far beyond the outermost scores as in a convolution without padding.
            score = self.pad_score(score)

        if self.stride <= 16:
            score = self.upsample_pool4(score)
            pool4 = self._beneath(score, pools[-2], 4)
            if 4 in self.scaled:
                pool4 = pool4 * self.scale_pool4.reshape(1, -1, 1, 1)
            score = score + self.score_pool4(pool4)
        if self.stride <= 8:
            score = self.upsample_pool3(score)
            pool3 = self._beneath(score, pools[-3], 8)
            if 3 in self.scaled:
                pool3 = pool3 * self.scale_pool3.reshape(1, -1, 1, 1)
            score = score + self.score_pool3(pool3)
        if self.stride <= 4:
            score = self.upsample_pool2(score)
            score = score + self.score_pool2(self._beneath(score, pools[-4], 16))
        if self.stride <= 2:
            score = self.upsample_pool1(score)
            score = score + self.score_pool1(self._beneath(score, pools[-5], 32))
        return self.upsample(score)

    def _beneath(self, score: Tensor, pool: Tensor, first: int) -> Tensor:
        """Return the part of a pooled map that lies beneath a score map, which begins two coarse cells further in."""
        if not self.published:
            return pool
        return pool[:, :, first : first + score.shape[2], first : first + score.shape[3]]


def check_size(images: Tensor) -> None:
    """Refuse images that are too small.

    ``construct`` cannot: a graph of dynamic height and width that raises an error cannot be called again.

    Raises:
        ValueError: If a side is smaller than 32 pixels.
    """
    height, width = images.shape[2:]
    if min(height, width) < MINIMUM_SIZE:
        raise ValueError(f"an image must be at least {MINIMUM_SIZE} x {MINIMUM_SIZE} pixels, not {height} x {width}")


def draw_masks(shape: tuple[int, ...], dropout: float, generator: np.random.Generator) -> np.ndarray | None:
    """Draw masks of a shape, true with probability 1 - dropout (to 1/65536), bool; None without dropout."""
    if dropout == 0:
        return None
    values = np.frombuffer(generator.bytes(2 * math.prod(shape)), np.uint16)
    return (values >= round(dropout * 2**16)).reshape(shape)


def score_layer(in_channels: int, num_classes: int) -> nn.Conv2d:
    """Return a 1x1 convolution to class scores, with bias."""
    return nn.Conv2d(in_channels, num_classes, 1, has_bias=True, weight_init="zeros", bias_init="zeros")


def initialise(network: nn.Cell, seed: int) -> None:
    """Draw the initial weights of an `FCN`.

    They come from one numpy generator, in the order of the layers, and not from MindSpore's random state, so that the
    same seed gives the same network on every device and MindSpore version.

    Convolutions before a ReLU are drawn from He et al.'s normal distribution (ICCV 2015), in place of the ImageNet
    weights of the paper. Biases and score layers stay zero, as in the paper (CVPR 2015, section 4.1), upsampling stays
    bilinear and batch norm the identity.

    Args:
        network: The network, whose 4-dimensional weights are overwritten, except those of score and upsampling layers.
        seed: The seed of the generator.
    """
    generator = np.random.default_rng(seed)
    for parameter in network.trainable_params():
        layer = parameter.name.removesuffix(".weight").rpartition(".")[2]
        if parameter.ndim != 4 or layer.startswith(("score", "upsample")):
            continue
        weight = generator.standard_normal(parameter.shape, dtype=np.float32)
        weight *= math.sqrt(2 / math.prod(parameter.shape[1:]))
        parameter.set_data(Tensor(weight))


def check_arguments(
    stride: int, num_classes: int, width: float, norm: str, dropout: float, seed: int, in_channels: int = 3
) -> None:
    """Refuse arguments that no `FCN` can be built from; a notebook may give any, a configuration was checked before.

    Raises:
        ConfigError: It names the key and the value.
    """
    if stride not in STRIDES:
        raise ConfigError(f"arch.stride must be one of {', '.join(map(str, STRIDES))}, not {stride!r}")
    if not isinstance(num_classes, Integral) or num_classes < 2:
        raise ConfigError(f"dataset.num_classes must be an integer of at least 2, not {num_classes!r}")
    if not isinstance(width, Real) or not 0 < width < math.inf:
        raise ConfigError(f"arch.width must be a number above 0, not {width!r}")
    if norm not in NORMS:
        raise ConfigError(f"arch.norm must be one of {', '.join(NORMS)}, not {norm!r}")
    if not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise ConfigError(f"arch.dropout must be a number from 0 to below 1, not {dropout!r}")
    if not isinstance(seed, Integral) or seed < 0:
        raise ConfigError(f"seed must be an integer of at least 0, not {seed!r}")
    if not isinstance(in_channels, Integral) or in_channels < 1:
        raise ConfigError(f"dataset.channels must be an integer of at least 1, not {in_channels!r}")


fcn32s = partial(FCN, 32)
fcn16s = partial(FCN, 16)
fcn8s = partial(FCN, 8)
fcn4s = partial(FCN, 4)
fcn2s = partial(FCN, 2)


def _published(
    stride: int, encoder: type[VGG16Encoder | AlexNetEncoder] = VGG16Encoder, **options: Any
) -> Callable[..., FCN]:
    return partial(FCN, stride, norm="none", encoder=encoder, published=True, **options)


paper_fcn32s = _published(32)
paper_fcn16s = _published(16)
paper_fcn8s = _published(8)
paper_fcn8s_atonce = _published(8, pool_scales={4: 0.01, 3: 0.0001})
paper_fcn_alexnet = _published(32, encoder=AlexNetEncoder)
