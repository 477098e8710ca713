"""A network's weights, set from arrays by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from mindspore import Parameter, Tensor, nn

from fcnlab.core.errors import CheckpointError
from fcnlab.models.finite import first_nonfinite

log = logging.getLogger(__name__)


def load_weights(network: nn.Cell, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Set every parameter of a network from arrays of the same names and shapes.

    NaN and infinity are set as they are, with a warning: they may be why somebody wants to look at the network.

    Raises:
        CheckpointError: If a parameter is missing or has another shape; the message names the first one.
    """
    for name, parameter in network.parameters_dict().items():
        if name not in arrays:
            raise CheckpointError(f"{source}: has no {name}; it belongs to another network")
        if arrays[name].shape != parameter.shape:
            raise CheckpointError(_other_shape(source, name, arrays[name], parameter))
        _set(parameter, arrays[name])
    name = first_nonfinite(network.parameters_dict())
    if name is not None:
        log.warning("%s: %s holds NaN or infinity; its predictions may look sound nevertheless", source, name)


def _set(parameter: Parameter, array: np.ndarray) -> None:
    parameter.set_data(Tensor(np.ascontiguousarray(array, dtype=np.float32)))


def _other_shape(source: str, name: str, array: np.ndarray, parameter: Parameter) -> str:
    return (
        f"{source}: {name} has shape {tuple(array.shape)}, this network's has {tuple(parameter.shape)}; "
        "use the arch.width, arch.norm and dataset.num_classes it was trained with"
    )
