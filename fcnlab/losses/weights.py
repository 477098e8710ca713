"""What the losses weigh classes with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mindspore import Parameter, Tensor
from mindspore import dtype as mstype

from fcnlab.errors import ConfigError

CONFIGURED = "configured_"
"""How the name of a parameter begins whose value comes from the configuration."""


def check_class_weights(class_weights: Sequence[float], num_classes: int) -> None:
    """Refuse class weights that define no weighted mean.

    Raises:
        ConfigError: If their number is not ``num_classes``, or one is negative or not finite, or all are 0.
    """
    values = list(class_weights)
    if len(values) != num_classes:
        raise ConfigError(
            f"loss.class_weights must have one weight for each of {num_classes} classes, not {len(values)}"
        )
    if not all(0 <= weight < math.inf for weight in values) or sum(values) == 0:
        raise ConfigError(f"loss.class_weights must be numbers from 0 up, not all of them 0; got {values}")


def weights_parameter(class_weights: Sequence[float] | None, num_classes: int) -> Parameter | None:
    """Class weights as a parameter that is not trained, float32; None stays None.

    The weights may come from a data set's labels. As a parameter they are an input of the compiled graph, so that the
    graph is the same for every data set; a tensor would be a constant in it.

    Raises:
        ConfigError: As `check_class_weights` does.
    """
    if class_weights is None:
        return None
    check_class_weights(class_weights, num_classes)
    weights = Tensor([float(weight) for weight in class_weights], mstype.float32)
    return Parameter(weights, name=f"{CONFIGURED}class_weights", requires_grad=False)


def is_configured(parameter: Parameter) -> bool:
    """Whether a parameter's value comes from the configuration, so that it is no part of a training's state."""
    return parameter.name.rpartition(".")[2].startswith(CONFIGURED)
