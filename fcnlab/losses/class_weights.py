"""The class weights of the losses."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor
from mindspore import dtype as mstype

from fcnlab.core.errors import ConfigError

RANGE = (1e-15, 1e15)
"""The range of class weights that are not 0: sums over all pixels of an image, and their squares, stay finite in
float32."""

CONFIGURED = "configured_"
"""The beginning of the name of every parameter whose value comes from the configuration."""


def check_class_weights(class_weights: Sequence[float], num_classes: int) -> None:
    """Refuse class weights that define no weighted mean in float32.

    Raises:
        ConfigError: If their number is not ``num_classes``, all are 0, or one is neither 0 nor in `RANGE`.
    """
    values = list(class_weights)
    if len(values) != num_classes:
        raise ConfigError(
            f"loss.class_weights must have one weight for each of {num_classes} classes, not {len(values)}"
        )
    smallest, largest = RANGE
    if not all(weight == 0 or smallest <= weight <= largest for weight in values) or not any(values):
        raise ConfigError(
            f"loss.class_weights={values}: give numbers from {smallest:g} to {largest:g}, or 0 for classes that do not "
            "count, but not for all"
        )


def weights_parameter(class_weights: Sequence[float] | None, num_classes: int) -> Parameter | None:
    """Return class weights as a float32 parameter that is not trained; None stays None.

    The weights may depend on a data set's labels. As a parameter they are an input of the compiled graph, which is the
    same for every data set; as a tensor they would be a constant in it.

    Raises:
        ConfigError: As `check_class_weights` does.
    """
    if class_weights is None:
        return None
    check_class_weights(class_weights, num_classes)
    weights = Tensor([float(weight) for weight in class_weights], mstype.float32)
    return Parameter(weights, name=f"{CONFIGURED}class_weights", requires_grad=False)


def is_configured(parameter: Parameter) -> bool:
    """Return whether a parameter's value comes from the configuration, and so is no part of a training's state."""
    return parameter.name.rpartition(".")[2].startswith(CONFIGURED)
