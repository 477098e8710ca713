"""Networks as plain cells: the VGG encoder and one FCN class parametrised by its stride."""

from __future__ import annotations

from mindspore import nn

from fcnlab.models.fcn import FCN
from fcnlab.models.vgg import VGG16Encoder
from fcnlab.registry import ARCHITECTURES

__all__ = ["FCN", "VGG16Encoder", "build_model"]


def build_model(
    name: str,
    num_classes: int,
    width: float = 1.0,
    norm: str = "batch",
    dropout: float = 0.5,
    seed: int = 0,
    in_channels: int = 3,
) -> nn.Cell:
    """Build a registered architecture with initial weights.

    Args:
        name: Such as ``"fcn8s"``; see `fcnlab.registry.ARCHITECTURES`.
        num_classes: Classes C.
        width: Factor on every hidden channel count; 1 is the real network.
        norm: ``"batch"`` or ``"none"``.
        dropout: Probability with which a hidden activation of the head is dropped in training.
        seed: Of the initial weights.
        in_channels: Of the images; 3 is RGB.

    Returns:
        A cell from images (N x in_channels x H x W, float32) to logits (N x C x H x W, float32), in inference mode
        until ``set_train()``.

    Raises:
        ConfigError: If the name is unknown or an argument is out of range.
    """
    factory = ARCHITECTURES.get(name)
    # Not said where it is 3: another package's architecture need not know of it.
    channels = {} if in_channels == 3 else {"in_channels": in_channels}
    return factory(num_classes=num_classes, width=width, norm=norm, dropout=dropout, seed=seed, **channels)
