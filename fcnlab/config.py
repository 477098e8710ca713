"""The configuration: one typed dataclass a group, with the range of every value.

Hydra composes ``conf/`` against these classes, so that a wrong type or an unknown key is refused before anything is
built; `validate` then checks the ranges. What leaves this module is a plain `Config`, no OmegaConf node.

The classes are light on purpose: nothing here imports MindSpore or MLflow.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab.errors import ConfigError
from fcnlab.registry import REGISTRIES


def ranged(
    default: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A number within bounds (``above`` and ``below`` exclude the bound itself); a list has each element bounded."""
    bounds = {"minimum": minimum, "maximum": maximum, "above": above, "below": below}
    metadata = {key: bound for key, bound in bounds.items() if bound is not None}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def one_of(default: Any, choices: Sequence[Any]) -> Any:
    """A value out of a closed list."""
    return field(default=default, metadata={"choices": tuple(choices)})


@dataclass
class ArchConfig:
    """Which network: see `fcnlab.models.FCN`."""

    name: str = "fcn8s"
    stride: int = one_of(8, (2, 4, 8, 16, 32))
    width: float = ranged(0.25, above=0, maximum=4)
    norm: str = one_of("batch", ("batch", "none"))
    dropout: float = ranged(0.5, minimum=0, below=1)


@dataclass
class DatasetConfig:
    """What every data set has."""

    name: str = MISSING
    root: Optional[str] = None
    num_classes: int = ranged(2, minimum=2, maximum=255)
    ignore_index: int = ranged(255, minimum=0, maximum=255)
    class_names: list[str] = field(default_factory=list)
    crop_size: int = ranged(128, minimum=32)
    crops_per_image: int = ranged(1, minimum=1)
    mean: list[float] = ranged([0.5, 0.5, 0.5], minimum=0, maximum=1)
    std: list[float] = ranged([0.25, 0.25, 0.25], above=0)
    cache_mib: int = ranged(2048, minimum=0)
    num_workers: int = ranged(1, minimum=1, maximum=64)


@dataclass
class CellsConfig(DatasetConfig):
    """Generated slices: see `fcnlab.data.cells`."""

    name: str = "cells"
    class_names: list[str] = field(default_factory=lambda: ["membrane", "cell"])
    num_train: int = ranged(32, minimum=1)
    num_val: int = ranged(8, minimum=1)
    image_size: int = ranged(256, minimum=64, maximum=8192)
    seed: int = ranged(0, minimum=0)


@dataclass
class FolderConfig(DatasetConfig):
    """A folder of images and one of labels: see `fcnlab.data.folder`."""

    name: str = "folder"
    root: Optional[str] = field(default=None, metadata={"required": True})
    images: str = "images"
    labels: str = "labels"
    label_values: list[int] = ranged([], minimum=0, maximum=255)
    train_list: Optional[str] = None
    val_list: Optional[str] = None
    val_fraction: float = ranged(0.2, above=0, below=1)
    split_seed: int = ranged(0, minimum=0)


@dataclass
class Isbi2012Config(FolderConfig):
    """The ISBI 2012 challenge's slices: see `fcnlab.data.isbi2012`."""

    name: str = "isbi2012"
    class_names: list[str] = field(default_factory=lambda: ["membrane", "cell"])
    label_values: list[int] = ranged([0, 255], minimum=0, maximum=255)


@dataclass
class AugmentConfig:
    """Joint random transforms of a training image and its label: see `fcnlab.data.transforms`."""

    horizontal_flip: float = ranged(0.0, minimum=0, maximum=1)
    vertical_flip: float = ranged(0.0, minimum=0, maximum=1)
    rotate90: bool = False
    scale: list[float] = ranged([1.0, 1.0], minimum=0.1, maximum=10)
    brightness: float = ranged(0.0, minimum=0, maximum=1)
    contrast: float = ranged(0.0, minimum=0, below=1)


@dataclass
class OptimizerConfig:
    """What every optimizer has."""

    name: str = MISSING
    lr: float = ranged(1e-3, above=0)
    weight_decay: float = ranged(0.0, minimum=0, below=1)


@dataclass
class AdamConfig(OptimizerConfig):
    """Adam with L2 regularisation."""

    name: str = "adam"
    beta1: float = ranged(0.9, minimum=0, below=1)
    beta2: float = ranged(0.999, minimum=0, below=1)
    epsilon: float = ranged(1e-8, above=0)


@dataclass
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay."""

    name: str = "adamw"
    weight_decay: float = ranged(0.01, minimum=0, below=1)


@dataclass
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    name: str = "sgd"
    lr: float = ranged(0.01, above=0)
    weight_decay: float = ranged(5e-4, minimum=0, below=1)
    momentum: float = ranged(0.9, minimum=0, below=1)


@dataclass
class ScheduleConfig:
    """What every learning-rate schedule has."""

    name: str = MISSING
    warmup_steps: int = ranged(0, minimum=0)


@dataclass
class ConstantConfig(ScheduleConfig):
    """The same learning rate throughout."""

    name: str = "constant"


@dataclass
class PolyConfig(ScheduleConfig):
    """(1 - step / total) ** power."""

    name: str = "poly"
    power: float = ranged(0.9, above=0)


@dataclass
class CosineConfig(ScheduleConfig):
    """Half a cosine from 1 to ``final``."""

    name: str = "cosine"
    final: float = ranged(0.0, minimum=0, maximum=1)


@dataclass
class LossConfig:
    """What every loss has."""

    name: str = MISSING


@dataclass
class CrossEntropyConfig(LossConfig):
    """Pixel-wise cross-entropy."""

    name: str = "cross_entropy"
    class_weights: Optional[list[float]] = ranged(None, minimum=0)


@dataclass
class TrainerConfig:
    """How long to train, on what, and what to keep: see `fcnlab.training.trainer`."""

    epochs: int = ranged(20, minimum=1)
    max_steps: Optional[int] = ranged(None, minimum=1)
    batch_size: int = ranged(8, minimum=1)
    eval_every: int = ranged(5, minimum=1)
    mode: str = one_of("graph", ("graph", "pynative"))
    device: str = one_of("auto", ("auto", "cpu", "ascend"))
    clip_norm: Optional[float] = ranged(None, above=0)
    monitor: str = "val/mean_iou"
    patience: Optional[int] = ranged(None, minimum=1)
    save_every: Optional[int] = ranged(None, minimum=1)


@dataclass
class TrackingConfig:
    """Where the experiment is recorded: see `fcnlab.tracking`."""

    name: str = one_of("mlflow", ("mlflow", "none"))
    uri: Optional[str] = None
    experiment: str = "fcnlab"
    run_name: Optional[str] = None
    overlays: int = ranged(3, minimum=0)


@dataclass
class Config:
    """A whole experiment."""

    arch: ArchConfig = field(default_factory=ArchConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = ranged(0, minimum=0, maximum=2**31 - 1)
    init_from: Optional[str] = None


SCHEMAS: dict[str, dict[str, type]] = {
    "dataset": {"cells": CellsConfig, "folder": FolderConfig, "isbi2012": Isbi2012Config},
    "optimizer": {"adam": AdamConfig, "adamw": AdamWConfig, "sgd": SGDConfig},
    "schedule": {"constant": ConstantConfig, "poly": PolyConfig, "cosine": CosineConfig},
    "loss": {"cross_entropy": CrossEntropyConfig},
}
"""The typed class of each option in the groups whose options differ in their keys."""


def config_folder() -> Path:
    """The folder with the YAML tree: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


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


def options(section: Any, *without: str) -> dict[str, Any]:
    """A section's keys as keyword arguments for a registry's factory, without its name and the keys given."""
    return {
        item.name: getattr(section, item.name)
        for item in dataclasses.fields(section)
        if item.name not in ("name", *without)
    }


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values: ``{"arch.name": "fcn8s", ...}``."""
    return dict(_leaves(config, prefix))


def validate(config: Config) -> None:
    """Check every value's range and the rules that tie two keys together.

    Raises:
        ConfigError: Naming the key, its value and what is allowed.
    """
    for key, value, metadata in _fields(config):
        _check(key, value, metadata)
    for group, registry in REGISTRIES.items():
        registry.check(getattr(config, group).name)
    _check_relations(config)


def _check_relations(config: Config) -> None:
    arch, dataset = config.arch, config.dataset
    named = re.fullmatch(r"fcn(\d+)s", arch.name)
    if named and int(named[1]) != arch.stride:
        raise ConfigError(
            f"arch.stride={arch.stride} is not the stride of arch.name={arch.name}; use arch=fcn{arch.stride}s"
        )
    if dataset.ignore_index < dataset.num_classes:
        raise ConfigError(
            f"dataset.ignore_index={dataset.ignore_index} is one of dataset.num_classes={dataset.num_classes}; "
            "use one that is not, such as 255"
        )
    if dataset.class_names and len(dataset.class_names) != dataset.num_classes:
        raise ConfigError(
            f"dataset.class_names has {len(dataset.class_names)} names for dataset.num_classes={dataset.num_classes}; "
            "give one for each class"
        )
    for key in ("mean", "std"):
        if len(getattr(dataset, key)) != 3:
            raise ConfigError(f"dataset.{key}={getattr(dataset, key)}: give three values, for red, green and blue")
    scale = config.augment.scale
    if len(scale) != 2 or scale[0] > scale[1]:
        raise ConfigError(f"augment.scale={scale}: give the smallest and the largest factor, as in [0.75,1.5]")
    weights = getattr(config.loss, "class_weights", None)
    if weights is not None and len(weights) != dataset.num_classes:
        raise ConfigError(
            f"loss.class_weights has {len(weights)} values for dataset.num_classes={dataset.num_classes}; "
            "give one for each class"
        )


def _check(key: str, value: Any, metadata: Any) -> None:
    if value == MISSING or (value is None and metadata.get("required")):
        raise ConfigError(f"{key}: give a value, as in {key}=...")
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        raise ConfigError(f"{key}={value}: choose one of {', '.join(map(str, choices))}")
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if not math.isfinite(number):
            raise ConfigError(f"{key}={value}: must be a finite number")
        if "minimum" in metadata and number < metadata["minimum"]:
            raise ConfigError(f"{key}={value}: must be at least {metadata['minimum']:g}")
        if "maximum" in metadata and number > metadata["maximum"]:
            raise ConfigError(f"{key}={value}: must be at most {metadata['maximum']:g}")
        if "above" in metadata and number <= metadata["above"]:
            raise ConfigError(f"{key}={value}: must be above {metadata['above']:g}")
        if "below" in metadata and number >= metadata["below"]:
            raise ConfigError(f"{key}={value}: must be below {metadata['below']:g}")


def _fields(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    fields = dataclasses.fields(section)
    for name in vars(section).keys() - {item.name for item in fields}:  # `+trainer.foo=1` gets past Hydra
        raise ConfigError(_unknown_key(f"{prefix}{name}"))
    for item in fields:
        value, key = getattr(section, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{key}.")
        else:
            yield key, value, item.metadata


def _leaves(section: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value, _ in _fields(section, prefix):
        yield key, value


def one_line(error: BaseException) -> str:
    """Hydra's and OmegaConf's many-line messages as one line that names the key and the way out."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            return _unknown_option(cause)
    text = "\n".join(map(str, causes))
    override = re.search(r"Could not override '([^']+)'", text)
    full_key = re.search(r"full_key: (\S+)", text)
    if override or re.search(r"Key '[^']+' (is )?not in ", text):
        return _unknown_key((override or full_key)[1])
    first = next((line.strip() for line in str(causes[-1]).splitlines() if line.strip()), type(error).__name__)
    return f"{full_key[1]}: {first}" if full_key else first


def _unknown_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    return f"{group}={name}: {_nearest(name, error.options, group + '=')}known are {', '.join(error.options)}"


def _unknown_key(key: str) -> str:
    known = _known_keys()
    if key in known:
        return f"{key}: no such key with the {key.partition('.')[0]} that is chosen (`--cfg job` prints all)"
    return f"{key}: no such key; {_nearest(key, known)}`--cfg job` prints all"


def _nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {prefix}{nearest[0]}? " if nearest else ""


def _known_keys() -> list[str]:
    keys = {item.name: None for item in dataclasses.fields(Config)} | dict(_leaves(Config(), ""))
    for group, schemas in SCHEMAS.items():
        for schema in schemas.values():
            keys.update(_leaves(schema(), f"{group}."))
    return list(keys)
