"""The configuration classes of plug-ins: made from what other packages declare, when a key of theirs is asked for.

Another process finds a class that was made here by its name in this module, as ``pickle`` needs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigNode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab.config.schema import BASES, RESERVED, SCHEMAS, UNDECLARED, AugmentConfig, Config, FCNConfig
from fcnlab.core.errors import ConfigError, first_line
from fcnlab.registry import ENCODERS, REGISTRIES, TRANSFORMS, Registry

_AUGMENT, _ENCODER, _ROOT, _SLOTTED, _SLOTTED_ARCH = "augment", "encoder", "root", "slotted", "slotted_arch"


def option_class(group: str, name: str | None) -> type:
    """Return the class of an option's keys, such as `AdamConfig` for ``optimizer=adam``.

    Args:
        group: A group of the configuration, one of `BASES`.
        name: The name of the option. The class of an unknown option has the keys that every option has.

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
    return _make_class(f"{group}:{name}", (declared, BASES[group]))


def augment_class(names: Sequence[str]) -> type[AugmentConfig]:
    """Return the class of the ``augment`` section where ``augment.extra`` has these names.

    The keys of a transform with a ``Config`` are in a section of its name.

    Raises:
        ConfigError: As `option_class` does, or if no section can have a transform's name.
    """
    return _with_sections(_AUGMENT, AugmentConfig, _AUGMENT, TRANSFORMS, names, "augment.extra", "augment")


def encoder_class(name: str) -> type[FCNConfig]:
    """Return the class of the ``arch`` section of this package's networks where ``arch.encoder`` has this name.

    The keys of an encoder with a ``Config`` are in a section of its name.

    Raises:
        ConfigError: As `option_class` does, or if no section can have the encoder's name.
    """
    return _with_sections(_ENCODER, FCNConfig, "arch.encoder", ENCODERS, [name], "arch.encoder", "arch")


def _with_sections(
    kind: str, base: type, group: str, registry: Registry, names: Sequence[str], chosen_by: str, section: str
) -> type:
    """Return a section's class with a section of its own for the keys of each plug-in that was chosen.

    Args:
        kind: The beginning of the class's name in this module.
        base: The class of the section without plug-ins.
        group: The key of `RESERVED`, which errors name, too.
        registry: The registry of the plug-ins.
        names: The names that were chosen.
        chosen_by: The key that chooses them.
        section: The name of the section.
    """
    sections = {}
    for name in dict.fromkeys(names):
        declared = _declared(group, registry, name) if name in registry.additional() else None
        if declared is not None:
            if not name.isidentifier() or name in base.__dataclass_fields__:
                raise ConfigError(
                    f"{chosen_by}: the keys of {name} cannot stand below {section}.{name}: a {registry.kind} with keys "
                    f"needs a name of letters, digits and _ that is no key of {section}"
                )
            sections[name] = declared
    if not sections:
        return base
    return _make_class(":".join((kind, *sections)), (base,), tuple((name, cls, cls) for name, cls in sections.items()))


def composed_class(group: str, name: str | None) -> type:
    """Return the class that Hydra composes an option against: that of `option_class`, with slots for further keys.

    A slot takes any key of an installed encoder: `settled` checks the keys once it is known which encoder is used.
    """
    cls = option_class(group, name)
    return _slotted_arch(tuple(_slot_names(ENCODERS, FCNConfig))) if cls is FCNConfig else cls


def root_schema() -> type[Config]:
    """Return the class that Hydra composes the configuration of a training against.

    It is a `Config` whose sections have the keys that every option has, until an option is chosen, and a slot for the
    keys of each installed transform. A slot takes any key: `settled` checks the keys once it is known which transforms
    are used.
    """
    return _root(tuple(_slot_names(TRANSFORMS, AugmentConfig)))


def settled(config: Config) -> Config:
    """Return a composed configuration with the keys of its transforms and its encoder in their own classes.

    Raises:
        ConfigError: If such a key does not exist or is of the wrong type, or its transform or encoder is not used.
    """
    augment, arch = config.augment, config.arch
    cls = augment_class(augment.extra)
    found = {_AUGMENT: _settled_section(_AUGMENT, augment, AugmentConfig, cls, TRANSFORMS, augment.extra,
                                        "augment.extra=[{}]")}  # fmt: skip
    if type(arch) in (FCNConfig, _slotted_arch(tuple(_slot_names(ENCODERS, FCNConfig)))):
        cls = encoder_class(arch.encoder)
        found["arch"] = _settled_section("arch", arch, FCNConfig, cls, ENCODERS, [arch.encoder], "arch.encoder={}")
    return Config(**{**_values(config), **found})


def _settled_section(
    key: str, section: Any, base: type, cls: type, registry: Registry, chosen: Sequence[str], choice: str
) -> Any:
    """Return a section with the keys of its plug-ins in their own classes.

    Args:
        key: The name of the section.
        section: The section as it was composed.
        base: The class of the section without plug-ins.
        cls: The class of the section with the plug-ins that were chosen.
        registry: The registry of the plug-ins.
        chosen: The names that were chosen.
        choice: The override that chooses a name, with ``{}`` in its place.
    """
    known = _own_keys(cls)
    for name in _slot_names(registry, base):
        given = getattr(section, name, None)
        if given and name not in known:
            why = "has no keys" if name in chosen else f"needs {choice.format(name)}"
            raise ConfigError(f"{key}.{name}.{next(iter(given))}: {name} {why}")
    sections = {name: _typed(key, name, cls, getattr(section, name, None)) for name in known - _own_keys(base)}
    found = cls(**{name: getattr(section, name) for name in _own_keys(base)}, **sections)
    for name in vars(section).keys() - known - _own_keys(type(section)):
        setattr(found, name, getattr(section, name))  # no such key: `fcnlab.config.validate` refuses it
    return found


_read: dict[tuple[str, str], list[str]] = {}


def keys_read() -> list[str]:
    """Return the dotted keys of the plug-ins' options that Hydra has read, for the nearest match in an error."""
    return [f"{group}.{key}" for (group, _), keys in _read.items() for key in keys]


class PluginNode(ConfigNode):
    """An option of another package in Hydra's store, whose module is imported when Hydra reads the option.

    Args:
        group: The group of the configuration.
        option: The name of the option in that group.
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
    """Return the ``Config`` of a plug-in, checked; None if it has none."""
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
    except Exception as error:  # OmegaConf raises various errors for a type that it does not know
        raise ConfigError(
            f"{group}={name}: its Config cannot be used ({first_line(error)}); every key needs a default and a type "
            "that OmegaConf knows"
        ) from error
    return declared


@cache
def _make_class(
    name: str, bases: tuple[type, ...], sections: tuple[tuple[str, Any, Callable[[], Any]], ...] = ()
) -> type:
    """Make a dataclass that has the keys of its bases, and publish it in this module.

    Args:
        name: The name of the class.
        bases: The classes whose keys it has.
        sections: The name, the type and the default factory of each further key.
    """
    fields = [(section, kind, dataclasses.field(default_factory=make)) for section, kind, make in sections]
    cls = dataclasses.make_dataclass(name, fields, bases=bases)
    cls.__module__, cls.__qualname__ = __name__, name
    globals()[name] = cls
    return cls


def _root(slots: tuple[str, ...]) -> type[Config]:
    sections = {**BASES, _AUGMENT: _slotted(slots)}
    return _make_class(
        ":".join((_ROOT, *slots)), (Config,), tuple((group, cls, cls) for group, cls in sections.items())
    )


def _slotted(slots: tuple[str, ...]) -> type[AugmentConfig]:
    return _make_class(":".join((_SLOTTED, *slots)), (AugmentConfig,), tuple((slot, Any, _slot) for slot in slots))


def _slotted_arch(slots: tuple[str, ...]) -> type[FCNConfig]:
    return _make_class(":".join((_SLOTTED_ARCH, *slots)), (FCNConfig,), tuple((slot, Any, _slot) for slot in slots))


def __getattr__(name: str) -> type:
    """Make a class that another process named and this one has not made yet."""
    group, _, rest = name.partition(":")
    from_names = {
        _AUGMENT: augment_class,
        _ENCODER: lambda names: encoder_class(*names),
        _ROOT: _root,
        _SLOTTED: _slotted,
        _SLOTTED_ARCH: _slotted_arch,
    }
    if group in from_names:
        return from_names[group](tuple(filter(None, rest.split(":"))))
    if group in BASES and rest:
        return option_class(group, rest)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _slot_names(registry: Registry, base: type) -> list[str]:
    return [name for name in registry.additional() if name.isidentifier() and name not in _own_keys(base)]


def _slot() -> DictConfig:
    return DictConfig({}, flags={"struct": False})  # any key, without the + that Hydra asks for a new one


def _typed(above: str, name: str, cls: type, given: Mapping[str, Any] | None) -> Any:
    """Return the section of a plug-in, below the section ``above``, from the keys that were given."""
    section = cls.__dataclass_fields__[name].default_factory
    for key in given or {}:
        if key not in _own_keys(section):
            known = ", ".join(sorted(_own_keys(section)))
            raise ConfigError(f"{above}.{name}.{key}: no such key; those of {name} are {known}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(section), given or {}))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{above}.{name}.{error.full_key}: {first_line(error)}") from error


def _own_keys(cls: type) -> set[str]:
    return {item.name for item in dataclasses.fields(cls)}


def _values(section: Any) -> dict[str, Any]:
    return {name: getattr(section, name) for name in _own_keys(type(section))}
