"""Networks as plain cells: encoders, one FCN class for all of them and all strides, and torchvision's FCNs."""

from __future__ import annotations

import inspect
from typing import Any

from mindspore import nn

from fcnlab.core.errors import ConfigError
from fcnlab.models.dilated import DilatedFCN
from fcnlab.models.fcn import FCN
from fcnlab.models.vgg import VGG16Encoder
from fcnlab.registry import ARCHITECTURES

__all__ = ["FCN", "DilatedFCN", "VGG16Encoder", "build_model"]


def build_model(name: str, num_classes: int, *, seed: int = 0, in_channels: int = 3, **keys: Any) -> nn.Cell:
    """Build a registered architecture with initial weights.

    Args:
        name: The name of the architecture, such as ``"fcn8s"``; see `fcnlab.registry.ARCHITECTURES`.
        num_classes: The number of classes C.
        seed: The seed of the initial weights.
        in_channels: The number of the images' channels; 3 is RGB.
        keys: Further arguments of the architecture; this package's take those of `FCN`, with its defaults.

    Returns:
        A cell from images (N x in_channels x H x W, float32) to logits (N x C x H x W, float32). It is in inference
        mode until its ``set_train()`` is called.

    Raises:
        ConfigError: If the name is unknown, or an argument is unknown or out of range.
    """
    factory = ARCHITECTURES.get(name)
    # The default is left out, since an architecture of another package may know RGB images alone.
    channels = {} if in_channels == 3 else {"in_channels": in_channels}
    arguments = {"num_classes": num_classes, "seed": seed, **channels, **keys}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"arch={name}: {error}") from error
    return factory(**arguments)
