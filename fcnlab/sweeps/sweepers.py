"""Makes the sweepers of this package known to Hydra."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from hydra.core.plugins import Plugins

_PLUGINS = str(Path(__file__).parent / "plugins")


def register() -> None:
    """Make ``hydra/sweeper=search``, ``stages`` and ``verdict`` known to Hydra."""
    if _PLUGINS not in sys.path:
        sys.path.append(_PLUGINS)
    Plugins.instance().register(import_module("hydra_plugins.fcnlab_search").Search)
    Plugins.instance().register(import_module("hydra_plugins.fcnlab_stages").Stages)
    Plugins.instance().register(import_module("hydra_plugins.fcnlab_verdict").Verdict)
