"""A network's weights, set from arrays by name: all of them, or those that it shares with another network."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from mindspore import Parameter, Tensor, nn

from fcnlab.core.errors import CheckpointError
from fcnlab.models.finite import first_nonfinite, is_finite

log = logging.getLogger(__name__)

_FIRST = "encoder.block1.conv1.weight"
_HEADS = ("score", "upsample")
"""The beginnings of the names of the layers whose shapes depend on the classes or on the stride."""


def load_weights(network: nn.Cell, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Set every parameter of a network from arrays of the same names and shapes.

    NaN and infinity are set as they are, with a warning: they may be why somebody wants to look at the network.

    Raises:
        CheckpointError: Naming the first parameter that is missing or of another shape.
    """
    for name, parameter in network.parameters_dict().items():
        if name not in arrays:
            raise CheckpointError(f"{source}: has no {name}; it belongs to another network")
        if arrays[name].shape != parameter.shape:
            raise CheckpointError(_other_shape(source, name, arrays[name], parameter))
        _set(parameter, arrays[name])
    name = first_nonfinite(network.parameters_dict())
    if name is not None:
        log.warning("%s: %s holds NaN or infinity, which what it predicts need not show", source, name)


def initialise_from(network: nn.Cell, arrays: Mapping[str, np.ndarray], source: str) -> list[str]:
    """Set the parameters that a network shares with another; all others keep their initial values.

    This is how the paper trains in stages (section 4.2: FCN-16s from FCN-32s, FCN-8s from FCN-16s), and how a network
    moves to other classes. Score and upsampling layers of another shape are left alone, and so is the first convolution
    if the images have another number of channels. Everything else must fit.

    Returns:
        The names of the parameters that were left alone.

    Raises:
        CheckpointError: If a shared layer has another shape, or NaN or infinity, or nothing at all fits.
    """
    left = []
    for name, parameter in network.parameters_dict().items():
        array = arrays.get(name)
        if array is not None and array.shape == parameter.shape:
            if not is_finite(array):
                raise CheckpointError(f"{source}: {name} holds NaN or infinity; start from another checkpoint")
            _set(parameter, array)
        elif array is None or name.startswith(_HEADS) or _of_other_images(name, array, parameter):
            left.append(name)
        else:
            raise CheckpointError(_other_shape(source, name, array, parameter))
    if len(left) == len(network.parameters_dict()):
        raise CheckpointError(f"{source}: none of its names is one of this network's; it belongs to another network")
    return left


def _of_other_images(name: str, array: np.ndarray, parameter: Parameter) -> bool:
    """Return whether the shapes of the first convolution differ in the number of the images' channels alone."""
    shapes = (array.shape, parameter.shape)
    return name == _FIRST and len({(shape[:1], shape[2:]) for shape in shapes}) == 1


def _set(parameter: Parameter, array: np.ndarray) -> None:
    parameter.set_data(Tensor(np.ascontiguousarray(array, dtype=np.float32)))


def _other_shape(source: str, name: str, array: np.ndarray, parameter: Parameter) -> str:
    return (
        f"{source}: {name} has shape {tuple(array.shape)}, this network's has {tuple(parameter.shape)}; "
        "use the arch.width, arch.norm and dataset.num_classes it was trained with"
    )
