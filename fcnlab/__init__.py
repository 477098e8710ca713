"""Fully convolutional networks for semantic segmentation on MindSpore, configured by Hydra and tracked in MLflow.

    import fcnlab

    config = fcnlab.compose(["arch=fcn8s", "trainer.epochs=2"])
    result = fcnlab.train(config)
    network = fcnlab.load(result.best_checkpoint)

Each name loads its module on first use, so that ``import fcnlab`` and ``--help`` stay fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from fcnlab.core import environment

__version__ = "0.2.0"

_LAZY = {
    "build_model": "fcnlab.models",
    "compose": "fcnlab.experiment.primary_config",
    "load": "fcnlab.experiment.loading",
    "FcnlabError": "fcnlab.core.errors",
}

__all__ = ["FcnlabError", "__version__", "build_model", "compose", "load", "train"]

environment.prepare()
sys.modules[f"{__name__}.environment"] = environment  # Models that version 0.2.0 packaged import it by this name.


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("fcnlab.train")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'fcnlab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
