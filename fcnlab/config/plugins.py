"""The classes of plug-ins' keys: taken from what other packages declare, when a key of theirs is asked for.

A class that this module derives is found again in another process by its name here, as ``pickle`` needs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigNode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab.config.schema import BASES, RESERVED, SCHEMAS, UNDECLARED, AugmentConfig, Config
from fcnlab.core.errors import ConfigError, first_line
from fcnlab.registry import REGISTRIES, TRANSFORMS, Registry

_AUGMENT, _ROOT, _SLOTTED = "augment", "root", "slotted"


def option_class(group: str, name: str | None) -> type:
    """The class of an option's keys, such as `AdamConfig` of ``optimizer=adam``.

    Args:
        group: Of the configuration, one of `BASES`.
        name: Of the option. Of an unknown one, the class has the keys that every option has.

    Raises:
        ConfigError: If a plug-in cannot be imported, or its ``Config`` is no dataclass with defaults.
    """
    registry = REGISTRIES[group]
    if name in SCHEMAS[group]:
        return SCHEMAS[group][name]
    if name not in registry.additional():
        return BASES[group]
    declared = _declared(group, registry, name)
    if declared is None:
        return UNDECLARED[group]
    if issubclass(declared, BASES[group]):
        return declared
    return _derived(f"{group}:{name}", declared, BASES[group])


def augment_class(names: Sequence[str]) -> type[AugmentConfig]:
    """The class of the ``augment`` section where ``augment.extra`` has these names.

    The keys of a transform with a ``Config`` are in a section of its name.

    Raises:
        ConfigError: As `option_class` does, or if no section can have a transform's name.
    """
    sections = {}
    for name in dict.fromkeys(names):
        declared = _declared(_AUGMENT, TRANSFORMS, name) if name in TRANSFORMS.additional() else None
        if declared is not None:
            if not name.isidentifier() or name in AugmentConfig.__dataclass_fields__:
                raise ConfigError(
                    f"augment.extra: the keys of {name} cannot stand below augment.{name}: a transform with keys needs "
                    "a name of letters, digits and _ that is no key of augment"
                )
            sections[name] = declared
    if not sections:
        return AugmentConfig
    return _with_sections(":".join((_AUGMENT, *sections)), tuple(sections.items()))


def root_schema() -> type[Config]:
    """What Hydra composes the configuration of a training against.

    It is a `Config` whose sections have the keys that every option has, until an option is chosen, and a place for the
    keys of each installed transform, whatever these are: they are checked once it is known which transforms are used.
    """
    return _root(tuple(_slot_names()))


def settled(config: Config) -> Config:
    """A composed configuration with the keys of its transforms in their own classes.

    Raises:
        ConfigError: If a key of a transform does not exist or is of the wrong type, or its transform is not used.
    """
    augment = config.augment
    cls = augment_class(augment.extra)
    known = {item.name for item in dataclasses.fields(cls)}
    for name in _slot_names():
        given = getattr(augment, name, None)
        if given and name not in known:
            key = next(iter(given))
            why = "has no keys" if name in augment.extra else f"needs augment.extra=[{name}]"
            raise ConfigError(f"augment.{name}.{key}: {name} {why}")
    sections = {name: _typed(name, cls, getattr(augment, name, None)) for name in known - _own_keys(AugmentConfig)}
    values = {name: getattr(augment, name) for name in _own_keys(AugmentConfig)}
    return Config(**{**_values(config), _AUGMENT: cls(**values, **sections)})


_read: dict[tuple[str, str], list[str]] = {}


def keys_read() -> list[str]:
    """The dotted keys of those options of other packages that Hydra has read, for a near miss in an error."""
    return [f"{group}.{key}" for (group, _), keys in _read.items() for key in keys]


class PluginNode(ConfigNode):
    """An option of another package in Hydra's store, whose module is imported when Hydra reads the option.

    Args:
        group: Of the configuration.
        option: Its name in that group.
    """

    def __init__(self, group: str, option: str) -> None:
        self._node: DictConfig | None = None
        super().__init__(f"{option}.yaml", None, group, None, None)

    @property
    def node(self) -> DictConfig:
        """The option's keys with their defaults."""
        if self._node is None:
            name = self.name.removesuffix(".yaml")
            self._node = OmegaConf.structured(option_class(self.group, name))
            self._node.name = name
            _read[self.group, name] = list(self._node)
        return self._node

    @node.setter
    def node(self, value: DictConfig | None) -> None:
        self._node = value


def _declared(group: str, registry: Registry, name: str) -> type | None:
    """The ``Config`` of a plug-in, checked."""
    declared = getattr(registry.get(name), "Config", None)
    if declared is None:
        return None
    if not (isinstance(declared, type) and dataclasses.is_dataclass(declared)):
        raise ConfigError(f"{group}={name}: its Config is no dataclass; give it the decorator @dataclass")
    reserved = [item.name for item in dataclasses.fields(declared) if item.name in RESERVED[group]]
    if reserved:
        raise ConfigError(
            f"{group}={name}: its Config has a key {reserved[0]}, which every {registry.kind} is called with anyway; "
            "give the key another name"
        )
    try:
        OmegaConf.structured(declared())
    except Exception as error:  # OmegaConf raises what it likes for a type that it does not know
        raise ConfigError(
            f"{group}={name}: its Config cannot be used ({first_line(error)}); every key needs a default and a type "
            "that OmegaConf knows"
        ) from error
    return declared


@cache
def _root(slots: tuple[str, ...]) -> type[Config]:
    name = ":".join((_ROOT, *slots))
    sections = {**BASES, _AUGMENT: _slotted(slots)}
    fields = [(group, cls, dataclasses.field(default_factory=cls)) for group, cls in sections.items()]
    return _published(dataclasses.make_dataclass(name, fields, bases=(Config,)), name)


@cache
def _slotted(slots: tuple[str, ...]) -> type[AugmentConfig]:
    name = ":".join((_SLOTTED, *slots))
    fields = [(slot, Any, dataclasses.field(default_factory=_slot)) for slot in slots]
    return _published(dataclasses.make_dataclass(name, fields, bases=(AugmentConfig,)), name)


@cache
def _derived(name: str, declared: type, base: type) -> type:
    return _published(dataclasses.dataclass(type(name, (declared, base), {"__doc__": declared.__doc__})), name)


@cache
def _with_sections(name: str, sections: tuple[tuple[str, type], ...]) -> type:
    fields = [(section, cls, dataclasses.field(default_factory=cls)) for section, cls in sections]
    return _published(dataclasses.make_dataclass(name, fields, bases=(AugmentConfig,)), name)


def _published(cls: type, name: str) -> type:
    """A class under a name of this module."""
    cls.__module__, cls.__qualname__ = __name__, name
    globals()[name] = cls
    return cls


def __getattr__(name: str) -> type:
    """A derived class that another process named and this one has not made yet."""
    group, _, rest = name.partition(":")
    made_of_names = {_AUGMENT: augment_class, _ROOT: _root, _SLOTTED: _slotted}
    if group in made_of_names:
        return made_of_names[group](tuple(filter(None, rest.split(":"))))
    if group in BASES and rest:
        return option_class(group, rest)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _slot_names() -> list[str]:
    return [name for name in TRANSFORMS.additional() if name.isidentifier() and name not in _own_keys(AugmentConfig)]


def _slot() -> DictConfig:
    return DictConfig({}, flags={"struct": False})  # any key, without the + that Hydra asks for a new one


def _typed(name: str, cls: type, given: Mapping[str, Any] | None) -> Any:
    section = cls.__dataclass_fields__[name].default_factory
    for key in given or {}:
        if key not in _own_keys(section):
            known = ", ".join(sorted(_own_keys(section)))
            raise ConfigError(f"augment.{name}.{key}: no such key; those of {name} are {known}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(section), given or {}))
    except OmegaConfBaseException as error:
        raise ConfigError(f"augment.{name}.{error.full_key}: {first_line(error)}") from error


def _own_keys(cls: type) -> set[str]:
    return {item.name for item in dataclasses.fields(cls)}


def _values(section: Any) -> dict[str, Any]:
    return {item.name: getattr(section, item.name) for item in dataclasses.fields(section)}
