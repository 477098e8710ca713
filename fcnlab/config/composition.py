"""From ``conf/`` and the words of a command line to a validated `Config`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab import __version__
from fcnlab.config.messages import one_line
from fcnlab.config.plugins import PluginNode, augment_class, option_class, root_schema, settled
from fcnlab.config.roles import Role
from fcnlab.config.schema import (
    BASES,
    COMMANDS,
    SCHEMAS,
    Config,
    DatasetConfig,
    PrepareConfig,
    keys_with,
    leaves,
    role_of,
)
from fcnlab.config.validation import validate
from fcnlab.core.errors import ConfigError
from fcnlab.registry import REGISTRIES, TRANSFORMS

PACKAGE = Path(__file__).resolve().parents[1]

RECORD_FILE = "config.yaml"
"""Where a run keeps what `to_yaml` wrote: an artifact, and a file in its output folder."""

RECORDED = "from_run"
"""Name of the primary configuration that `recorded_base` makes, and of the option in each group that it chooses."""


def config_folder() -> Path:
    """The folder with the YAML tree: inside the package when installed from a wheel, beside it in a checkout."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"


def register_schemas() -> None:
    """Tell Hydra the typed classes, and make every plug-in's ``Config`` selectable by its name.

    It takes long enough to be done again only after other plug-ins have been installed or registered.
    """
    store = ConfigStore.instance()
    # `validate` refuses a name that both this package and another have.
    others = {group: sorted({*registry.additional()} - {*registry.builtin()}) for group, registry in REGISTRIES.items()}
    known = (others, TRANSFORMS.additional())
    if _registered.get(store) == known:
        return
    store.store(name="config_schema", node=root_schema())
    unnamed = {"override_dirname": {"exclude_keys": list(keys_with(Role.ANEW, Config()))}}
    store.store(name="trial_folders", node={"hydra": {"job": {"config": unnamed}}})
    for name, schema in COMMANDS.items():
        store.store(name=f"schema_{name}", node=schema)
    for group, options in SCHEMAS.items():
        for name, schema in options.items():
            # Not a group of its own, which `--help` would list beside the real ones.
            store.store(name=f"schema_{group}_{name}", node=schema)
    for group, names in others.items():
        kept = {name: node for name, node in store.repo.get(group, {}).items() if not isinstance(node, PluginNode)}
        store.repo[group] = kept | {f"{name}.yaml": PluginNode(group, name) for name in names}
    _registered[store] = known


_registered: WeakKeyDictionary[ConfigStore, Any] = WeakKeyDictionary()
"""The plug-ins that a store of Hydra's knows."""


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> Any:
    """Compose a configuration in this process; `fcnlab.compose` is the same and knows ``from_run``.

    Args:
        overrides: As on the command line.
        config_name: The primary configuration: a file of ``conf/``, or what `recorded_base` yields.

    Returns:
        A `Config`, or what `COMMANDS` has for another command's.

    Raises:
        ConfigError: In one line that names the key, for anything Hydra or `validate` refuses.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            node = hydra_compose(config_name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error, COMMANDS.get(config_name, Config))) from error
    except ConfigError:  # of a plug-in that was chosen
        raise
    except Exception as error:
        raise wrong_words(overrides, error) from error
    return from_node(node)


def wrong_words(words: Sequence[str], error: Exception) -> ConfigError:
    """Hydra leaves some of what can be wrong with a word, such as ``arch=1``, to Python's own errors."""
    return ConfigError(f"{' '.join(' '.join(words).split())}: {one_line(error)}")


def value_of(words: Sequence[str], key: str) -> str | None:
    """What the words of a command line set a key to; the last one counts, as for Hydra.

    Raises:
        ConfigError: If the value cannot be parsed, or is several.
    """
    words = [word for word in words if re.match(rf"\+*{re.escape(key)}=", word)]
    if not words:
        return None
    try:
        override = OverridesParser.create().parse_override(words[-1])
    except HydraException as error:
        raise ConfigError(f"{words[-1]}: {error}; quote the value twice, as in '{key}=\"...\"'") from error
    if override.is_sweep_override():
        raise ConfigError(f"{words[-1]}: give one value; {key} goes with sweeps over other keys")
    value = override.value()
    return None if value is None else str(value)


@contextmanager
def recorded_base(recorded: DictConfig) -> Iterator[str]:
    """Compose on a recorded configuration in place of the choices and values of ``conf/train.yaml``.

    Each recorded section becomes an option of its group, and a primary configuration chooses these options. Whatever
    chooses another one (a word of the command line, an experiment) so replaces the section, as it replaces a default.

    Args:
        recorded: What `to_yaml` wrote, parsed. A key that it lacks takes the default of its class, and a section that
            it lacks the option that ``conf/train.yaml`` chooses.

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
    primary.update({key: typed[key] for key in recorded if key not in groups})
    store.store(name=RECORDED, node=primary)
    try:
        yield RECORDED
    finally:
        for options in (store.repo, *(store.repo[group] for group in groups)):
            del options[f"{RECORDED}.yaml"]


def refuse_interpolations(recorded: DictConfig | ListConfig) -> None:
    """Refuse a recorded configuration that refers to anything beyond itself, such as ``${oc.env:HOME}``.

    What `to_yaml` wrote has only values.

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
    """A recorded configuration, checked against today's classes."""
    recorded, sections = recorded.copy(), {}
    try:
        for group in BASES:
            name = OmegaConf.select(recorded, f"{group}.name")
            if name not in (None, *REGISTRIES[group].names()):
                recorded[group] = {"name": name}  # a plug-in that is not installed: `validate` says so if it is used
            sections[group] = option_class(group, name)()
        return OmegaConf.merge(OmegaConf.structured(root_schema()(**sections)), recorded)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error


def recorded_roles(params: Mapping[str, str]) -> dict[str, Role]:
    """The role of each key of a recorded training.

    Args:
        params: The dotted keys and the values of its configuration, as text.

    Returns:
        The roles by key. Those of a plug-in that cannot be imported here are missing.
    """
    sections: list[tuple[str, Any]] = [("", Config())]
    for group in BASES:
        with suppress(ConfigError):
            sections.append((f"{group}.", option_class(group, params.get(f"{group}.name"))()))
    with suppress(ConfigError, ValueError, SyntaxError):
        sections.append(("augment.", augment_class(ast.literal_eval(params.get("augment.extra", "[]")))()))
    found = [leaves(section, prefix) for prefix, section in sections]
    return {key: role_of(metadata) for items in found for key, _, metadata in items}


def from_node(node: DictConfig) -> Any:
    """Turn what Hydra composed into a validated `Config`, or another command's class.

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
        config = settled(config)
    if isinstance(config, PrepareConfig):
        config.dataset.root = (config.root if config.check else config.source) or "."
    if getattr(getattr(config, "dataset", None), "name", None) == "folder":
        config.dataset = _described(config.dataset)
    validate(config)
    return config


def _described(dataset: DatasetConfig) -> DatasetConfig:
    """With what the folder says of itself."""
    from fcnlab.data import description

    defaults = OmegaConf.load(config_folder() / "dataset" / "folder.yaml")
    del defaults["defaults"]
    return description.apply(dataset, OmegaConf.to_container(defaults))


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML, in the order of the classes, below a line with the version that wrote it."""
    return f"# fcnlab {__version__}\n{OmegaConf.to_yaml(OmegaConf.structured(config))}"
