"""Groups of parameters with a learning rate or a weight decay of their own, by the names of the parameters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fcnlab.core.errors import ConfigError
from fcnlab.training.name_patterns import matching, near

log = logging.getLogger(__name__)

PATTERN, LR, WEIGHT_DECAY = "pattern", "lr", "weight_decay"
"""The keys of a group, of which the last two may be missing."""


def assign_groups(names: Sequence[str], groups: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the group of each parameter: the first whose pattern matches the parameter's name.

    Args:
        names: The names of the parameters that are trained.
        groups: The value of ``optimizer.groups``.

    Returns:
        A group for each name; an empty one for a name that no pattern matches.

    Raises:
        ConfigError: If a group has no parameter. The text names parameters with names that are like its pattern.
    """
    chosen: dict[str, Mapping[str, Any]] = {}
    for group in groups:
        pattern = group[PATTERN]
        found = matching(pattern, names)
        if not found:
            raise ConfigError(
                f"optimizer.groups: no parameter that is trained has a name like '{pattern}'; there are {len(names)}, "
                f"such as {near(pattern, names)}"
            )
        left = [name for name in found if name not in chosen]
        if not left:
            raise ConfigError(
                f"optimizer.groups: all parameters with a name like '{pattern}' belong to earlier groups; put this "
                "group before them, or leave it out"
            )
        chosen |= dict.fromkeys(left, group)
        log.info("optimizer.groups: %d parameters like %s: %s", len(left), pattern, _described(group))
    return [chosen.get(name, {}) for name in names]


def _described(group: Mapping[str, Any]) -> str:
    parts = [f"learning rate times {group[LR]:g}"] if LR in group else []
    parts += [f"weight decay {group[WEIGHT_DECAY]:g}"] if WEIGHT_DECAY in group else []
    return ", ".join(parts)
