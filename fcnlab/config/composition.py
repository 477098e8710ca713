"""From ``conf/`` and the words of a command line to a validated `Config`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab.config.messages import one_line
from fcnlab.config.schema import SCHEMAS, Config
from fcnlab.config.validation import validate
from fcnlab.errors import ConfigError
from fcnlab.registry import REGISTRIES

PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """The folder with the YAML tree: inside the package when installed from a wheel, beside it in a checkout."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"


def register_schemas() -> None:
    """Tell Hydra the typed classes, and make every plug-in's ``Config`` selectable by its name."""
    store = ConfigStore.instance()
    store.store(name="config_schema", node=Config)
    for group, options in SCHEMAS.items():
        for name, schema in options.items():
            # Not a group of its own, which `--help` would list beside the real ones.
            store.store(name=f"schema_{group}_{name}", node=schema)
    for group, registry in REGISTRIES.items():
        for name, factory in registry.plugins().items():
            schema = getattr(factory, "Config", None)
            if schema is not None:
                store.store(group=group, name=name, node=schema)


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> Config:
    """The configuration that ``python -m fcnlab.train <overrides>`` would use: a notebook's way in.

    Raises:
        ConfigError: In one line that names the key, for anything Hydra or `validate` refuses.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            node = hydra_compose(config_name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from error
    return from_node(node)


def from_node(node: DictConfig) -> Config:
    """Turn what Hydra composed into a validated `Config`.

    Raises:
        ConfigError: If a value is missing, of the wrong type or out of range.
    """
    try:
        config = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error
    validate(config)
    return config


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML, in the order of the classes."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
