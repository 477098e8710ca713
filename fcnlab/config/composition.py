"""Composes a validated `Config` from ``conf/`` and overrides."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab import __version__
from fcnlab.config.folder import config_folder
from fcnlab.config.help_text import other_keys
from fcnlab.config.messages import one_line
from fcnlab.config.plugins import (
    PluginNode,
    augment_class,
    composed_class,
    encoder_class,
    option_class,
    root_schema,
    settled,
)
from fcnlab.config.roles import Role
from fcnlab.config.schema import (
    BASES,
    COMMANDS,
    MISSING,
    SCHEMAS,
    Config,
    FCNConfig,
    FolderConfig,
    PrepareConfig,
    keys_with,
    leaves,
    role_of,
)
from fcnlab.config.validation import validate
from fcnlab.core.errors import ConfigError, FcnlabError
from fcnlab.registry import ENCODERS, REGISTRIES, TRANSFORMS

RECORD_FILE = "config.yaml"
"""The name of the file with a run's configuration, an artifact of the run and a file in its output folder."""

MEAN = "dataset.mean"

_HOME = re.compile(r"""(?P<key>\+{0,2}[\w.@/:-]+)=(?P<quote>["']?)~(?P<rest>(?:/[^"']*)?)(?P=quote)""")

RECORDED = "from_run"
"""The name of the primary configuration that `recorded_base` makes, and of the option that it chooses in each group."""


def register_schemas() -> None:
    """Register the typed classes with Hydra, so that every plug-in's ``Config`` is selectable by its name.

    This takes long enough to be repeated only after other plug-ins have been installed or registered.
    """
    OmegaConf.register_new_resolver("fcnlab.conf", lambda: str(config_folder()), replace=True)
    OmegaConf.register_new_resolver("fcnlab.other_keys", lambda: other_keys(str(config_folder())), replace=True)
    store = ConfigStore.instance()
    if not isinstance(store.repo, _SharedNodes):
        store.repo = _SharedNodes(store.repo)
    # `validate` refuses a name that both this package and another have.
    others = {group: sorted({*registry.additional()} - {*registry.builtin()}) for group, registry in REGISTRIES.items()}
    known = (others, TRANSFORMS.additional(), ENCODERS.additional())
    if _registered.get(store) == known:
        return
    store.store(name="config_schema", node=root_schema())
    unnamed = {"override_dirname": {"exclude_keys": list(keys_with(Role.ANEW, Config()))}}
    store.store(name="trial_folders", node={"hydra": {"job": {"config": unnamed}}})
    for name, schema in COMMANDS.items():
        store.store(name=f"schema_{name}", node=schema)
    for group, options in SCHEMAS.items():
        for name in options:
            # Not a group of its own, which `--help` would list beside the real ones.
            store.store(name=f"schema_{group}_{name}".replace("/", "_"), node=composed_class(group, name))
    for group, names in others.items():
        kept = {name: node for name, node in store.repo.get(group, {}).items() if not isinstance(node, PluginNode)}
        store.repo[group] = kept | {f"{name}.yaml": PluginNode(group, name) for name in names}
    _registered[store] = known


class _SharedNodes(dict[str, Any]):
    """The nodes of Hydra's store, which all copies of the store share.

    Hydra copies its store for each configuration that it composes and for each group that ``--help`` lists, which takes
    seconds, although it only reads the nodes and copies each one that it hands out.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _SharedNodes:
        return self


_registered: WeakKeyDictionary[ConfigStore, Any] = WeakKeyDictionary()
"""The plug-ins that were registered with each store of Hydra's."""


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> Any:
    """Compose a configuration in this process; `fcnlab.compose` does the same and takes ``from_run`` and ``resume``.

    Args:
        overrides: Overrides as on the command line.
        config_name: The name of the primary configuration: a file of ``conf/``, or what `recorded_base` yields.

    Returns:
        A `Config`, or for another command the class that `COMMANDS` has for it.

    Raises:
        ConfigError: In one line that names the key, for anything that Hydra or `validate` refuses.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    overrides = with_home(overrides)
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            node = hydra_compose(config_name, overrides=list(overrides))
            return from_node(node, overrides, config_name)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error, COMMANDS.get(config_name, Config))) from error
    except FcnlabError:  # a plug-in was chosen that is wrong, or `from_node` refuses a value
        raise
    except Exception as error:
        raise wrong_override(overrides, error) from error


def wrong_override(overrides: Sequence[str], error: Exception) -> ConfigError:
    """Return the error for an override that Hydra checks only by an error of Python's own, such as ``arch=1``."""
    return ConfigError(f"{' '.join(' '.join(overrides).split())}: {one_line(error)}")


def with_home(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which a value that begins with ``~/`` is a path in the home folder.

    A shell expands ``~`` only at the start of a word, and Hydra takes it only in quotes, as the name of a folder.
    """
    expanded = []
    for override_ in overrides:
        found = _HOME.fullmatch(override_)
        if found is None or (home := os.path.expanduser("~")) == "~":
            expanded.append(override_)
        else:
            expanded.append(override(found["key"], home + found["rest"]))
    return expanded


def value_of(overrides: Sequence[str], key: str) -> str | None:
    """Return the value that overrides give to a key, as a text; None if they give none.

    The last override of the key counts, as for Hydra.

    Raises:
        ConfigError: If the value cannot be parsed, or there are several values to sweep over.
    """
    given = [override for override in overrides if re.match(rf"\+*{re.escape(key)}=", override)]
    if not given:
        return None
    try:
        parsed = OverridesParser.create().parse_override(given[-1])
    except HydraException as error:
        raise ConfigError(f"{given[-1]}: {error}; quote the value twice, as in '{key}=\"...\"'") from error
    if parsed.is_sweep_override():
        raise ConfigError(f"{given[-1]}: give one value; {key} goes with sweeps over other keys")
    value = parsed.value()
    return None if value is None else str(value)


def override(key: str, value: object) -> str:
    """Return the override that sets a key to a text, quoted so that Hydra takes every character as it stands."""
    quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{quoted}'"


def is_set(overrides: Sequence[str], key: str) -> bool:
    """Whether overrides set a key, or an element of it, as ``dataset.mean[0]=0.4`` does."""
    return any(re.match(rf"\+*{re.escape(key)}[=.\[]", override) for override in overrides)


@contextmanager
def recorded_base(recorded: DictConfig) -> Iterator[str]:
    """Compose on a recorded configuration in place of the choices and values of ``conf/train.yaml``.

    Each recorded section becomes an option of its group, and a primary configuration chooses these options. So an
    override or an experiment that chooses another option replaces the section, as it replaces a default.

    Args:
        recorded: The parsed text that `to_yaml` wrote. A missing key takes the default of its class; for a missing
            section, the option counts that ``conf/train.yaml`` chooses.

    Yields:
        The name of the primary configuration, as `compose` and ``hydra.main`` take it.

    Raises:
        ConfigError: If a recorded key does not exist or its value is of the wrong type.
    """
    register_schemas()
    typed = _typed(recorded)
    store = ConfigStore.instance()
    primary = OmegaConf.load(config_folder() / "train.yaml")
    groups = []
    for choice in filter(OmegaConf.is_dict, primary.defaults):
        chosen = [group for group in choice if group in recorded]
        choice.update(dict.fromkeys(chosen, RECORDED))
        groups += chosen
    for group in groups:
        store.store(group=group, name=RECORDED, node=typed[group])
    keys = [key for key in typed if key in recorded or not OmegaConf.is_config(typed._get_node(key))]
    primary.update({key: typed[key] for key in keys if key not in groups})
    store.store(name=RECORDED, node=primary)
    try:
        yield RECORDED
    finally:
        for options in (store.repo, *(store.repo[group] for group in groups)):
            del options[f"{RECORDED}.yaml"]


def refuse_interpolations(recorded: DictConfig | ListConfig) -> None:
    """Refuse a recorded configuration with an interpolation, such as ``${oc.env:HOME}``; `to_yaml` writes none.

    Raises:
        ValueError: Naming the key.
    """
    for key in recorded if OmegaConf.is_dict(recorded) else range(len(recorded)):
        node = recorded._get_node(key)
        if node is not None and node._is_interpolation():
            raise ValueError(f"{key} refers to something else")
        if OmegaConf.is_config(node) and not node._is_none() and not node._is_missing():
            refuse_interpolations(node)


def _typed(recorded: DictConfig) -> DictConfig:
    """Check a recorded configuration against today's classes."""
    recorded, sections = recorded.copy(), {}
    try:
        for group in BASES:
            name = OmegaConf.select(recorded, f"{group}.name")
            if name not in (None, *REGISTRIES[group].names()):
                recorded[group] = {"name": name}  # a plug-in that is not installed: `validate` says so if it is used
            sections[group] = composed_class(group, name)()
        encoder = OmegaConf.select(recorded, "arch.encoder")
        if encoder not in (None, *ENCODERS.names()):
            recorded.arch.pop(encoder, None)  # the keys of a plug-in that is not installed, likewise
        return OmegaConf.merge(OmegaConf.structured(root_schema()(**sections)), recorded)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error


def recorded_roles(params: Mapping[str, str]) -> dict[str, Role]:
    """Return the role of each key of a recorded training.

    Args:
        params: The dotted keys and the values of the training's configuration, as text.

    Returns:
        The roles by key, without those of a plug-in that cannot be imported here.
    """
    return {key: role for cls, prefix in _recorded_classes(params) for key, (role, _) in _known(cls, prefix).items()}


def recorded_defaults(params: Mapping[str, str]) -> dict[str, str]:
    """Return the default of each key that a recorded training would have today, as text.

    A training that was recorded before a key existed did what the key's default says.

    Args:
        params: See `recorded_roles`.
    """
    found: dict[str, str] = {}
    for cls, prefix in _recorded_classes(params):
        for key, (_, text) in _known(cls, prefix).items():
            # The sections of `Config` are of the default options, and this training may have chosen others.
            if text != MISSING and (prefix or key.partition(".")[0] not in BASES):
                found[key] = text
    return found


def _recorded_classes(params: Mapping[str, str]) -> Iterator[tuple[type, str]]:
    """Yield the classes of a recorded training's sections, each with what its keys begin with."""
    yield Config, ""
    for group in BASES:
        with suppress(ConfigError):
            yield option_class(group, params.get(f"{group}.name")), f"{group}."
    with suppress(ConfigError):
        if option_class("arch", params.get("arch.name")) is FCNConfig:
            yield encoder_class(params.get("arch.encoder", FCNConfig.encoder)), "arch."
    with suppress(ConfigError, ValueError, SyntaxError):
        yield augment_class(ast.literal_eval(params.get("augment.extra", "[]"))), "augment."


@cache
def _known(cls: type, prefix: str) -> Mapping[str, tuple[Role, str]]:
    """Return the role and the default of a section's keys; a comparison asks for the same ones again and again."""
    return {key: (role_of(metadata), str(value)) for key, value, metadata in leaves(cls(), prefix)}


def from_node(node: DictConfig, overrides: Sequence[str] = (), config_name: str = "train") -> Any:
    """Turn a node that Hydra composed into a validated `Config`, or into another command's class.

    Args:
        node: The node.
        overrides: The overrides that it was composed with.
        config_name: The name of the primary configuration that it was composed on.

    Raises:
        ConfigError: If a value is missing, of the wrong type or out of range.
    """
    if "dataset" in node and OmegaConf.is_missing(node.dataset, "name"):
        known = ", ".join(REGISTRIES["dataset"].names())
        raise ConfigError(f"dataset: choose one, as in dataset=<name>; known are {known}")
    missing = OmegaConf.missing_keys(node)
    if missing:
        key = min(missing)
        raise ConfigError(f"{key}: give a value, as in {key}=...")
    try:
        config = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error
    if isinstance(config, Config):
        config = _with_explicit_mean(settled(config), overrides, config_name)
    if isinstance(config, PrepareConfig):
        config.dataset.root = (config.root if config.check else config.source) or "."
    is_recorded = config_name == RECORDED and value_of(overrides, "dataset") in (None, RECORDED)
    if getattr(getattr(config, "dataset", None), "name", None) == "folder" and not is_recorded:
        config.dataset = _described(config.dataset, overrides)
    validate(config)
    return config


def _with_explicit_mean(config: Config, overrides: Sequence[str], config_name: str) -> Config:
    """Set ``init_mean=false`` where the user gave ``dataset.mean``, which the weights' mean must not replace then.

    The mean of a data set's own file or of a folder's ``dataset.yaml`` is not the user's.

    Raises:
        ConfigError: If overrides give both.
    """
    if not config.init_mean or config.init_from is None:
        return config
    if is_set(overrides, MEAN):
        if is_set(overrides, "init_mean"):
            raise ConfigError(f"{MEAN} and init_mean=true: give one; the weights of init_from would replace that mean")
    elif not _file_sets_mean(overrides, config_name):
        return config
    return dataclasses.replace(config, init_mean=False)


def _file_sets_mean(overrides: Sequence[str], config_name: str) -> bool:
    """Whether an experiment, or a primary configuration of the user's own, sets ``dataset.mean``."""
    loader = GlobalHydra.instance().config_loader()
    # Hydra's public way to the files is without those of an override of hydra.searchpath.
    _, files = loader._parse_overrides_and_create_caching_repo(config_name, list(overrides))
    for item in loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN).defaults:
        if item.package or item.config_path is None:
            continue
        file = files.load_config(item.config_path)
        is_class = file is None or file.path.startswith("structured:")
        if not is_class and OmegaConf.select(file.config, MEAN, throw_on_missing=False) is not None:
            return True
    return False


def _described(dataset: FolderConfig, overrides: Sequence[str]) -> FolderConfig:
    """Apply the ``dataset.yaml`` of a folder to its configuration, but for keys that overrides set.

    A recorded configuration has had it applied: what its run was trained with counts, not what the file says today.
    """
    from fcnlab.data import description

    described = keys_with(Role.DESCRIBED, FolderConfig())
    types = {item.name: str(item.type) for item in dataclasses.fields(FolderConfig) if item.name in described}
    files = ("base_dataset", "base_folders", "dataset/folder")  # in the order of the last one's defaults list
    defaults = OmegaConf.merge(*(OmegaConf.load(config_folder() / f"{name}.yaml") for name in files))
    untouched = {key: value for key, value in OmegaConf.to_container(defaults).items()
                 if not is_set(overrides, f"dataset.{key}")}  # fmt: skip
    return description.apply(dataset, types, untouched)


def to_yaml(config: Config) -> str:
    """Write a configuration as YAML, in the order of the classes, below a line with this package's version."""
    return f"# fcnlab {__version__}\n{OmegaConf.to_yaml(OmegaConf.structured(config))}"
