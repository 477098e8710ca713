"""What an `FCN` asks of its encoder, and how it gets one by name.

An encoder is a cell from images to pooled maps. Those of this package and of others are in the registry
`fcnlab.registry.ENCODERS`, and ``arch.encoder`` chooses one by name. It is called with ``width`` (the factor on every
number of channels), ``norm`` (``"batch"``, ``"group"`` or ``"none"``), ``in_channels`` (the number of the images'
channels) and the keys of its own ``Config``, if it has one. It refuses what it does not have with a
`fcnlab.core.errors.ConfigError`.

Inputs:
    N x in_channels x H x W, float32, where H and W are multiples of 32.

Outputs:
    A tuple of the maps at strides 2, 4, 8, 16 and 32, finest first: N x channels[i] x H / stride x W / stride, float32.
    The first ones may be absent; the network is then refused for prediction strides that need them.

Attributes:
    channels: The number of channels of each map.
    head_kernel: The side of the kernel of fc6, which sees the coarsest map: that of the map that the classifier's first
        dense layer saw. It is None for a classifier without hidden dense layers, such as a ResNet: the classes are then
        scored on the coarsest map itself, as on GoogLeNet in the paper (CVPR 2015, section 4.1). It is 7 without the
        attribute.
    reach: By how many pixels, at most, what a cell of the coarsest map sees exceeds the cell on one side. It is None or
        absent if it is not known: a large image is then computed whole rather than in tiles.

The weights of all its 4-dimensional trainable parameters are drawn by `fcnlab.models.fcn.initialise`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mindspore import nn

from fcnlab.core.errors import ConfigError
from fcnlab.registry import ENCODERS


def build_encoder(
    name: str, width: float, norm: str, in_channels: int, options: Mapping[str, Any] | None = None
) -> nn.Cell:
    """Build a registered encoder.

    Args:
        name: The name of the encoder; see `fcnlab.registry.ENCODERS`.
        width: The factor on every number of channels.
        norm: The normalisation after each convolution.
        in_channels: The number of the images' channels.
        options: The keys of the encoder's own.

    Raises:
        ConfigError: If the name or an option is unknown, or the encoder has no such normalisation.
    """
    factory = ENCODERS.get(name)
    if options and ENCODERS.is_builtin(name):
        raise ConfigError(f"arch.encoder={name}: has no keys of its own, but is given {', '.join(map(str, options))}")
    arguments = {"width": width, "norm": norm, "in_channels": in_channels, **(options or {})}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"arch.encoder={name}: {error}") from error
    encoder = factory(**arguments)
    channels = getattr(encoder, "channels", None)
    if not isinstance(channels, list | tuple) or not 1 <= len(channels) <= 5:
        raise ConfigError(
            f"arch.encoder={name}: does not say the channels of its maps in an attribute `channels`; mend that package"
        )
    return encoder
