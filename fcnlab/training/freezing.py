"""Parameters that a training leaves as they are."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mindspore import nn

from fcnlab.core.errors import ConfigError
from fcnlab.training.name_patterns import matching, near

log = logging.getLogger(__name__)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)  # of which `nn.BatchNorm3d` holds one


def freeze(network: nn.Cell, patterns: Sequence[str]) -> frozenset[str]:
    """Exclude parameters from training, by their names: no gradient is computed for them.

    A batch normalisation whose scale and shift are both frozen normalises with its moving statistics, in training, too,
    and leaves them as they are, so that what is frozen goes on computing the same function. (PyTorch's
    ``requires_grad=False`` alone would normalise with the batch's statistics and move the others.)

    Args:
        network: The network, which is changed.
        patterns: Patterns of names, as ``optimizer.freeze`` has them.

    Returns:
        The names of the frozen parameters, including those of moving statistics.

    Raises:
        ConfigError: If a pattern matches nothing that is trained, or if nothing is left to train. The network has not
            changed then.
    """
    if not patterns:
        return frozenset()
    trained = [parameter.name for parameter in network.trainable_params()]
    everything = [parameter.name for parameter in network.get_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        found = matching(pattern, trained)
        if not found and matching(pattern, everything):
            raise ConfigError(
                f"optimizer.freeze: what has a name like '{pattern}' is not trained anyway; leave this pattern out"
            )
        if not found:
            raise ConfigError(
                f"optimizer.freeze: no parameter has a name like '{pattern}'; there are {len(trained)}, such as "
                f"{near(pattern, trained)}"
            )
        frozen |= set(found)
    if len(frozen) == len(trained):
        raise ConfigError(
            f"optimizer.freeze={list(patterns)}: matches all parameters, so that nothing would be trained"
        )
    for parameter in network.trainable_params():
        parameter.requires_grad = parameter.name not in frozen
    log.info("optimizer.freeze: %d of %d parameters stay as they are", len(frozen), len(trained))
    for _, cell in network.cells_and_names():
        if isinstance(cell, _NORMS) and {cell.gamma.name, cell.beta.name} <= frozen:
            cell.use_batch_statistics = False
            frozen |= {cell.moving_mean.name, cell.moving_variance.name}
    return frozenset(frozen)
