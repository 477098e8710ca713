"""What the losses weigh classes with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mindspore import Tensor
from mindspore import dtype as mstype

from fcnlab.errors import ConfigError


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


def weights_tensor(class_weights: Sequence[float] | None, num_classes: int) -> Tensor | None:
    """Class weights as float32; None stays None.

    Raises:
        ConfigError: As `check_class_weights` does.
    """
    if class_weights is None:
        return None
    check_class_weights(class_weights, num_classes)
    return Tensor([float(weight) for weight in class_weights], mstype.float32)
