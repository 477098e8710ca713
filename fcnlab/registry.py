"""Named factories, open to other packages through entry points.

A package adds an architecture, data set, loss, transform, optimizer or schedule by declaring an entry point::

    [project.entry-points."fcnlab.datasets"]
    mitochondria = "their_package.data:Mitochondria"

The object may carry an attribute ``Config``: a dataclass with its configuration keys, which then becomes selectable as
``dataset=mitochondria`` without a YAML file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from fcnlab.errors import ConfigError


class Registry:
    """Factories of one kind, by name.

    Args:
        kind: What the factories make, as an error names it ("optimizer").
        group: The entry-point group that other packages use ("fcnlab.optimizers").
        builtin: Name to ``"module:attribute"``; imported on first use, so that listing names stays cheap.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = frozenset(builtin)
        self._factories: dict[str, str | Callable[..., Any]] = dict(builtin)

    def register(self, name: str, factory: Callable[..., Any]) -> None:
        """Add a factory at run time (a notebook's way in).

        Raises:
            ConfigError: If the name is taken.
        """
        if name in self.names():
            raise ConfigError(f"{self.kind} '{name}' is registered already; choose another name")
        self._factories[name] = factory

    def names(self) -> list[str]:
        """All known names, sorted."""
        return sorted({*self._factories, *self._plugins()})

    def plugins(self) -> dict[str, Callable[..., Any]]:
        """What other packages declare, loaded, by name."""
        return {name: entry_point.load() for name, entry_point in self._plugins().items()}

    def builtin(self) -> list[str]:
        """This package's own names, in their order."""
        return [name for name in self._factories if name in self._builtin]

    def is_builtin(self, name: str) -> bool:
        """Whether a name is this package's own, neither a plug-in nor registered at run time."""
        return name in self._builtin

    def check(self, name: str) -> None:
        """Refuse an unknown name without importing a known one.

        Raises:
            ConfigError: The text lists the known names and the nearest match.
        """
        if name not in self.names():
            raise ConfigError(self._unknown(name))

    def get(self, name: str) -> Callable[..., Any]:
        """The factory called ``name``.

        Raises:
            ConfigError: If it is unknown; the text lists the known names and the nearest match.
        """
        self.check(name)
        factory = self._factories.get(name)
        if factory is None:
            factory = self._plugins()[name].load()
        elif isinstance(factory, str):
            module, attribute = factory.split(":")
            factory = getattr(import_module(module), attribute)
        self._factories[name] = factory
        return factory

    def _plugins(self) -> dict[str, Any]:
        return {entry_point.name: entry_point for entry_point in entry_points(group=self.group)}

    def _unknown(self, name: str) -> str:
        nearest = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean '{nearest[0]}'? " if nearest else ""
        return f"unknown {self.kind} '{name}': {hint}known are {', '.join(self.names())}"


ARCHITECTURES = Registry(
    "architecture",
    "fcnlab.architectures",
    {f"fcn{stride}s": f"fcnlab.models.fcn:fcn{stride}s" for stride in (32, 16, 8, 4, 2)},
)
"""Called with ``num_classes, width, norm, dropout, seed``; returns the network, an ``nn.Cell``."""

DATASETS = Registry(
    "dataset",
    "fcnlab.datasets",
    {
        "cells": "fcnlab.data.cells:Cells",
        "folder": "fcnlab.data.records:folder",
        "isbi2012": "fcnlab.data.isbi2012:isbi2012",
        "voc2012": "fcnlab.data.voc2012:Voc2012",
        "camvid": "fcnlab.data.camvid:Camvid",
    },
)
"""Called with the data set's configuration and a split ("train" or "val"); returns a `fcnlab.data.Dataset`."""

LOSSES = Registry(
    "loss",
    "fcnlab.losses",
    {
        "cross_entropy": "fcnlab.losses:CrossEntropy",
        "focal": "fcnlab.losses:Focal",
        "dice": "fcnlab.losses:Dice",
        "combined": "fcnlab.losses:Combined",
    },
)
"""Called with ``ignore_index, num_classes`` and the loss's own keys; returns a cell, logits and labels to a scalar."""

TRANSFORMS = Registry(
    "transform",
    "fcnlab.transforms",
    {
        "rotation": "fcnlab.data.warps:rotation",
        "elastic": "fcnlab.data.warps:elastic",
        "gamma": "fcnlab.data.appearance:gamma",
        "colour_jitter": "fcnlab.data.appearance:colour_jitter",
        "blur": "fcnlab.data.appearance:blur",
        "noise": "fcnlab.data.appearance:noise",
    },
)
"""Called with the configuration's ``augment`` section and ``ignore_index``; returns a `fcnlab.data.dataset.Transform`,
or None where there is nothing to do. The built-in ones are applied in this order, then those that ``augment.extra``
names."""

OPTIMIZERS = Registry(
    "optimizer",
    "fcnlab.optimizers",
    {name.lower(): f"fcnlab.training.optimizers:{name}" for name in ("Adam", "AdamW", "SGD")},
)
"""Called with the parameters and the optimizer's own keys except ``lr``; returns a cell that updates them."""

SCHEDULES = Registry(
    "schedule",
    "fcnlab.schedules",
    {name: f"fcnlab.training.schedules:{name}" for name in ("constant", "poly", "cosine")},
)
"""Called with ``step``, ``total_steps`` and the schedule's own keys; returns the factor on the learning rate."""

REGISTRIES = {
    "arch": ARCHITECTURES,
    "dataset": DATASETS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""By the group of the configuration that names one of its factories."""
