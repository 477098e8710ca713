"""Named factories, open to other packages through entry points.

A package adds an architecture, encoder, data set, loss, transform, optimizer or schedule by declaring an entry point::

    [project.entry-points."fcnlab.datasets"]
    mitochondria = "their_package.data:Mitochondria"

The object may have an attribute ``Config``: a dataclass with its configuration keys. ``dataset=mitochondria`` then
selects it with these keys, without a YAML file. The keys of a transform stand below ``augment.<name>`` once
``augment.extra`` names it, and those of an encoder below ``arch.<name>`` once ``arch.encoder`` does. The dataclass need
not derive from one of `fcnlab.config.schema`, whose keys it gets anyway. A key may state a role
(``fcnlab.config.schema.key(2, Role.FREE)``); a key that does not is taken to shape the compiled graphs and to be fixed
for a training's life.

Names are listed without importing anything: the module of a plug-in is imported when its name is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from fcnlab.core.errors import ConfigError, did_you_mean, first_line


class Origin(NamedTuple):
    """The origin of a plug-in.

    Attributes:
        distribution: The name of the installed distribution that declares the plug-in; None if it is not known.
        version: The version of that distribution.
        module: The name of the module that the plug-in is imported from.
    """

    distribution: str | None
    version: str | None
    module: str


class Registry:
    """A registry of the factories of one kind, by name.

    Args:
        kind: What the factories make, for errors ("optimizer").
        group: The entry-point group that other packages use ("fcnlab.optimizers").
        builtin: This package's own names, each with ``"module:attribute"``, which is imported on first use.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._registered: dict[str, Callable[..., Any]] = {}

    def register(self, name: str, factory: Callable[..., Any]) -> None:
        """Add a factory at run time, as in a notebook; its ``Config`` is selectable like that of a plug-in.

        Raises:
            ConfigError: If the name is taken.
        """
        if name in self.names():
            raise ConfigError(
                f"{self.kind} '{name}' is registered already; choose another name, or take back what this session "
                "registered with unregister"
            )
        self._registered[name] = factory

    def unregister(self, name: str) -> None:
        """Remove a factory that `register` added, so that a notebook's cell can be run again.

        Raises:
            ConfigError: If nothing was registered under the name at run time.
        """
        if name not in self._registered:
            raise ConfigError(f"{self.kind} '{name}' was not registered in this session")
        del self._registered[name]

    def names(self) -> list[str]:
        """Return all known names, sorted."""
        return sorted({*self._builtin, *self.additional()})

    def additional(self) -> list[str]:
        """Return the names of the plug-ins and of the factories that were registered at run time, sorted."""
        return sorted({*self._registered, *(found.name for found in _installed(self.group))})

    def builtin(self) -> list[str]:
        """Return this package's own names, in their order."""
        return list(self._builtin)

    def is_builtin(self, name: str) -> bool:
        """Whether a name is this package's own, neither a plug-in nor registered at run time."""
        return name in self._builtin

    def origin(self, name: str) -> Origin | None:
        """Return the origin of a plug-in; None if the name is built in or was registered at run time."""
        for found in self._declared(name):
            dist = found.dist
            return Origin(dist and dist.name, dist and dist.version, found.module)
        return None

    def check(self, name: str) -> None:
        """Refuse an unknown or ambiguous name without importing anything.

        Raises:
            ConfigError: If it is; the text lists the known names and the nearest one, or the packages that share it.
        """
        declared = self._declared(name)
        owners = ["fcnlab"] * (name in self._builtin) + ["this session"] * (name in self._registered)
        owners += [_owner(found) for found in declared]
        if not owners:
            raise ConfigError(self._unknown(name))
        if len(owners) > 1:
            raise ConfigError(
                f"{self.kind} '{name}' is declared more than once, by {' and by '.join(owners)}: uninstall one of "
                "them, or give one another name"
            )

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory of a name.

        Raises:
            ConfigError: As `check` does, or if a plug-in cannot be imported.
        """
        self.check(name)
        if name in self._registered:
            return self._registered[name]
        if name in self._builtin:
            module, attribute = self._builtin[name].split(":")
            return getattr(import_module(module), attribute)
        (found,) = self._declared(name)
        origin = f"{self.kind} '{name}': {found.value} of {_owner(found)}"
        try:
            factory = found.load()
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"{origin} cannot be imported ({type(error).__name__}: {first_line(error)}); install what it needs, or "
                "mend that package"
            ) from error
        if not callable(factory):
            raise ConfigError(f"{origin} is no class or function but {type(factory).__name__}; mend that package")
        return factory

    def _declared(self, name: str) -> list[EntryPoint]:
        """Return the entry points of a name, one for each place that it may be imported from."""
        return list({found.value: found for found in _installed(self.group) if found.name == name}.values())

    def _unknown(self, name: str) -> str:
        hint = did_you_mean(name, self.names(), "'{}'")
        return f"unknown {self.kind} '{name}': {hint}known are {', '.join(self.names())}"


def _installed(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group; they are read again once a folder of the import path has changed."""
    return _read(entry_points, tuple((folder, _changed(folder)) for folder in sys.path)).get(group, ())


@lru_cache(maxsize=16)
def _read(find: Callable[[], Any], path: tuple[tuple[str, int | None], ...]) -> dict[str, tuple[EntryPoint, ...]]:
    """Read the entry points of all groups at once, since that opens a file of every installed package."""
    found = find()
    return {group: tuple(found.select(group=group)) for group in found.groups if group.startswith("fcnlab.")}


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return None


def _owner(found: EntryPoint) -> str:
    return f"{found.dist.name} {found.dist.version}" if found.dist else found.value


ARCHITECTURES = Registry(
    "architecture",
    "fcnlab.architectures",
    {
        **{f"fcn{stride}s": f"fcnlab.models.fcn:fcn{stride}s" for stride in (32, 16, 8, 4, 2)},
        **{
            f"paper/{name}": f"fcnlab.models.fcn:paper_{name}"
            for name in ("fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce", "fcn_alexnet")
        },
        **{f"torchvision/{name}": f"fcnlab.models.dilated:{name}" for name in ("fcn_resnet50", "fcn_resnet101")},
    },
)
"""The architectures, called with ``num_classes``, ``seed``, ``in_channels`` if that is not 3, and their own keys.

The own keys are those of the ``Config`` without ``name`` and ``stride``; ``width``, ``norm`` and ``dropout`` are among
them if the ``Config`` derives from `fcnlab.config.schema.ArchConfig` or there is none. An architecture returns the
network: an ``nn.Cell`` from images (N x in_channels x H x W, float32) to logits (N x C x H x W, float32).
"""

ENCODERS = Registry(
    "encoder",
    "fcnlab.encoders",
    {
        **{f"vgg{depth}": f"fcnlab.models.vgg:VGG{depth}Encoder" for depth in (11, 13, 16, 19)},
        "alexnet": "fcnlab.models.one_tower_alexnet:OneTowerAlexNetEncoder",
        **{f"resnet{depth}": f"fcnlab.models.resnet:ResNet{depth}Encoder" for depth in (18, 34, 50, 101)},
    },
)
"""The encoders of this package's FCNs, called with ``width``, ``norm``, ``in_channels`` and their own keys.

The keys of an encoder with a ``Config`` stand below ``arch.<name>``. An encoder is an ``nn.Cell`` from images to the
maps at strides 2 to 32: `fcnlab.models.encoders` says what else an FCN asks of it.
"""

DATASETS = Registry(
    "dataset",
    "fcnlab.datasets",
    {
        "cells": "fcnlab.data.cells:Cells",
        "folder": "fcnlab.data.folder:folder",
        "isbi2012": "fcnlab.data.isbi2012:isbi2012",
        "voc2012": "fcnlab.data.voc2012:Voc2012",
        "camvid": "fcnlab.data.camvid:Camvid",
    },
)
"""The data sets, called with their configuration and a split ("train", "val"); they return a `fcnlab.data.Dataset`.

A factory with an attribute ``has_test``, a function of the configuration, takes the split "test" where that is true
and ``dataset.test_set`` is ``auto``, which a plug-in's own ``Config`` may have as its default.
"""

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
"""The losses, called with ``ignore_index``, ``num_classes`` and their own keys.

They return a cell from logits and labels to a scalar. If the cell is a `fcnlab.losses.SummedLoss`, ``val/loss`` is the
loss of all validation images as one batch; otherwise, it is the mean over the images, weighted by the number of their
pixels that are not void.
"""

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
"""The transforms, called with the ``augment`` section, ``ignore_index`` and the keys of their own ``Config``.

They return a `fcnlab.data.dataset.Transform`, or None where there is nothing to do. The built-in ones are applied in
this order, then those that ``augment.extra`` names.
"""

OPTIMIZERS = Registry(
    "optimizer",
    "fcnlab.optimizers",
    {name.lower(): f"fcnlab.training.optimizers:{name}" for name in ("Adam", "AdamW", "SGD")},
)
"""The optimizers, called with the parameters that are not frozen and their own keys except ``lr``; they return a cell
that updates them. An optimizer that takes ``groups`` gets them where ``optimizer.groups`` has any."""

SCHEDULES = Registry(
    "schedule",
    "fcnlab.schedules",
    {name: f"fcnlab.training.schedules:{name}" for name in ("constant", "poly", "cosine")},
)
"""The schedules, called with ``step``, ``total_steps`` and their own keys; they return the learning rate's factor."""

REGISTRIES = {
    "arch": ARCHITECTURES,
    "dataset": DATASETS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""The registry of each group of the configuration that selects a factory by its name."""
