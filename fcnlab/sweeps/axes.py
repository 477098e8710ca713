"""What a sweep varies, and which trials follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def axes_of(overrides: Sequence[str], params: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Return the keys that a sweep varies, with their values or with the range that a search draws from.

    Args:
        overrides: The overrides of the command line.
        params: The ``params`` of the sweeper's configuration, which the overrides take precedence over.
    """
    axes: dict[str, list[str]] = {}
    for word in [*(f"{key}={value}" for key, value in (params or {}).items()), *overrides]:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            continue
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes.pop(key, None)
        elif override.is_discrete_sweep():
            axes[key] = [str(value) for value in override.sweep_string_iterator()]
        else:
            axes[key] = [word.partition("=")[2]]
    return axes


def planned(axes: Mapping[str, Sequence[str]], sweeper: Mapping[str, Any]) -> list[list[str]]:
    """Return the overrides of each trial that is to run, by its number.

    Args:
        axes: What `axes_of` returned.
        sweeper: The sweeper's configuration.

    Returns:
        Empty overrides for the trials of a search, which are not known yet; no trials for another package's sweeper.
    """
    if str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        choices = [[f"{key}={value}" for value in values] for key, values in axes.items()]
        return [list(trial) for trial in product(*choices)]
    count = sweeper.get("n_trials")
    return [[] for _ in range(count)] if isinstance(count, int) else []
