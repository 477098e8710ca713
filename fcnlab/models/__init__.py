"""Networks as plain cells: the VGG encoder and one FCN class parametrised by its stride."""

from __future__ import annotations

import inspect
from typing import Any

from mindspore import nn

from fcnlab.core.errors import ConfigError
from fcnlab.models.fcn import FCN
from fcnlab.models.vgg import VGG16Encoder
from fcnlab.registry import ARCHITECTURES

__all__ = ["FCN", "VGG16Encoder", "build_model"]


def build_model(name: str, num_classes: int, *, seed: int = 0, in_channels: int = 3, **keys: Any) -> nn.Cell:
    """Build a registered architecture with initial weights.

    Args:
        name: Such as ``"fcn8s"``; see `fcnlab.registry.ARCHITECTURES`.
        num_classes: Classes C.
        seed: Of the initial weights.
        in_channels: Of the images; 3 is RGB.
        keys: The architecture's own; those of this package's are ``width`` (1.0 unless given), ``norm`` (``"batch"``)
            and ``dropout`` (0.5), as in `FCN`.

    Returns:
        A cell from images (N x in_channels x H x W, float32) to logits (N x C x H x W, float32), in inference mode
        until ``set_train()``.

    Raises:
        ConfigError: If the name is unknown, or an argument is unknown or out of range.
    """
    factory = ARCHITECTURES.get(name)
    # Not said where it is 3: another package's architecture need not know of it.
    channels = {} if in_channels == 3 else {"in_channels": in_channels}
    arguments = {"num_classes": num_classes, "seed": seed, **channels, **keys}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"arch={name}: {error}") from error
    return factory(**arguments)
