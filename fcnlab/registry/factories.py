"""Finds factories by name: this package's own, those of other packages, and those of a notebook."""

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
