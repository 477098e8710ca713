"""The configuration: typed keys with their ranges and roles, composed by Hydra into a plain `Config`.

The names below load their modules on first use, since the schema is also needed where Hydra is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "composition": (
        "RECORDED",
        "RECORD_FILE",
        "compose",
        "from_node",
        "is_set",
        "override",
        "recorded_base",
        "recorded_defaults",
        "recorded_roles",
        "refuse_interpolations",
        "register_schemas",
        "to_yaml",
        "value_of",
        "with_home",
        "wrong_override",
    ),
    "folder": ("config_folder",),
    "messages": ("one_line",),
    "schema": (
        "COMMANDS",
        "MEDIAN_FREQUENCY",
        "CompareConfig",
        "Config",
        "DatasetConfig",
        "EvaluateConfig",
        "ExportConfig",
        "PredictConfig",
        "PrepareConfig",
        "TrackingConfig",
        "flatten",
        "keys_with",
        "options",
    ),
    "validation": ("check_tracking", "validate"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
