"""Checks the range of every value and the rules that tie two keys together."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import MISSING

from fcnlab.config.messages import unknown_key
from fcnlab.config.schema import MEDIAN_FREQUENCY, Config, DatasetConfig, FCNConfig, TrackingConfig, leaves
from fcnlab.core.credentials import has_password
from fcnlab.core.errors import ConfigError
from fcnlab.registry import ENCODERS, REGISTRIES, TRANSFORMS

_BOUNDS = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "above": (operator.gt, "above"),
    "below": (operator.lt, "below"),
}


def validate(config: Any) -> None:
    """Check every value's range and the rules that tie two keys together.

    Args:
        config: A `Config`, or an instance of another command's class.

    Raises:
        ConfigError: If a value is not allowed; the text names the key, its value and what is allowed.
    """
    _check_no_extra(config, type(config))
    for key, value, metadata in leaves(config):
        _check_value(key, value, metadata)
    for group, registry in REGISTRIES.items():
        if hasattr(config, group):
            registry.check(getattr(config, group).name)
    if hasattr(config, "dataset"):
        _check_dataset(config.dataset)
    if isinstance(config, Config):
        _check_relations(config)
        check_tracking(config.tracking)


def check_tracking(tracking: TrackingConfig) -> None:
    """Refuse a value that MLflow would refuse only after the training, or that must not be recorded.

    Raises:
        ConfigError: If there is one; the text names the key.
    """
    if tracking.uri is not None and has_password(tracking.uri):
        raise ConfigError(
            "tracking.uri: holds a password, which would be recorded; set MLFLOW_TRACKING_URI to it instead, or give "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    for key in ("experiment", "run_name", "register_as"):
        if has_password(getattr(tracking, key) or ""):
            raise ConfigError(
                f"tracking.{key}: holds a password or a token, which would be recorded; choose another name"
            )
    if tracking.register_as is not None and (not tracking.register_as.strip() or set(tracking.register_as) & set("/:")):
        raise ConfigError(f"tracking.register_as={tracking.register_as}: give a name without slashes and colons")
    if not re.fullmatch(r"(?!latest$|v\d+$)[\w\-]{1,255}", tracking.alias, re.ASCII | re.IGNORECASE):
        raise ConfigError(
            f"tracking.alias={tracking.alias}: give letters, digits, - and _, and neither latest nor v and a number"
        )


def _check_no_extra(section: Any, schema: type, prefix: str = "") -> None:
    """Refuse a key such as ``+trainer.foo=1``, which Hydra accepts although nothing reads it."""
    names = {item.name for item in dataclasses.fields(section)}
    for name, value in vars(section).items():
        if name not in names:
            raise ConfigError(unknown_key(f"{prefix}{name}", schema))
        if dataclasses.is_dataclass(value):
            _check_no_extra(value, schema, f"{prefix}{name}.")


def _check_value(key: str, value: Any, metadata: Mapping[str, Any]) -> None:
    if value == MISSING or (value is None and metadata.get("required")):
        choices = metadata.get("choices")
        raise ConfigError(f"{key}: give a value, as in {key}={choices[0] if choices else '...'}")
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        raise ConfigError(f"{key}={value}: choose one of {', '.join(map(str, choices))}")
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if not math.isfinite(number):
            raise ConfigError(f"{key}={value}: must be a finite number")
        for bound, (holds, phrase) in _BOUNDS.items():
            if bound in metadata and not holds(number, metadata[bound]):
                raise ConfigError(f"{key}={value}: must be {phrase} {metadata[bound]:g}")


def _check_relations(config: Config) -> None:
    arch, dataset = config.arch, config.dataset
    named = re.fullmatch(r"fcn(\d+)s", arch.name)
    if named and int(named[1]) != arch.stride:
        raise ConfigError(
            f"arch.stride={arch.stride} is not the stride of arch.name={arch.name}; use arch=fcn{arch.stride}s"
        )
    if isinstance(arch, FCNConfig):
        ENCODERS.check(arch.encoder)
    if config.trainer.parallel == "data":
        _check_parallel(config)
    elif config.trainer.workers is not None:
        raise ConfigError(
            f"trainer.workers={config.trainer.workers}: workers train one network with trainer.parallel=data; give it, "
            "or trainer.workers=null for one process"
        )
    scale = config.augment.scale
    if len(scale) != 2 or scale[0] > scale[1]:
        raise ConfigError(f"augment.scale={scale}: give the smallest and the largest factor, as in [0.75,1.5]")
    power = config.augment.gamma
    if len(power) != 2 or power[0] > power[1]:
        raise ConfigError(f"augment.gamma={power}: give the smallest and the largest power, as in [0.8,1.25]")
    for name in config.augment.extra:
        TRANSFORMS.check(name)
    _check_class_weights(getattr(config.loss, "class_weights", None), dataset.num_classes)
    freeze = config.optimizer.freeze
    if not all(isinstance(pattern, str) for pattern in freeze):
        raise ConfigError(f"optimizer.freeze={freeze}: give a list of patterns of names, as in ['encoder.block1.*']")
    for index, group in enumerate(getattr(config.optimizer, "groups", [])):
        _check_group(f"optimizer.groups[{index}]", group)


def _check_parallel(config: Config) -> None:
    """Refuse what several workers cannot do together."""
    trainer = config.trainer
    if trainer.recompute == "blocks" and getattr(config.arch, "norm", None) == "sync_batch":
        raise ConfigError(
            "trainer.recompute=blocks: would exchange the statistics of arch.norm=sync_batch twice; take another "
            "arch.norm, or leave trainer.recompute out"
        )


_GROUP = {"lr": {"minimum": 0}, "weight_decay": {"minimum": 0, "below": 1}}
"""The numbers that a group of parameters may have beside its pattern, and their ranges."""


def _check_group(key: str, group: Any) -> None:
    if not isinstance(group, dict) or not isinstance(group.get("pattern"), str):
        raise ConfigError(f"{key}={group}: give a group of parameters, as in {{pattern: '*.bias', lr: 2.0}}")
    for name in group:
        if name not in ("pattern", *_GROUP):
            raise ConfigError(f"{key}.{name}: no such key; a group of parameters has pattern, {' and '.join(_GROUP)}")
    if len(group) == 1:
        raise ConfigError(f"{key}: changes nothing; give it {' or '.join(_GROUP)}")
    for name, metadata in _GROUP.items():
        if name not in group:
            continue
        if isinstance(group[name], bool) or not isinstance(group[name], int | float):
            raise ConfigError(f"{key}.{name}={group[name]}: give a number")
        _check_value(f"{key}.{name}", group[name], metadata)


def _check_class_weights(weights: Any, num_classes: int) -> None:
    if weights is None or weights == MEDIAN_FREQUENCY:
        return
    numbers = isinstance(weights, list) and all(
        isinstance(weight, int | float) and not isinstance(weight, bool) for weight in weights
    )
    if not numbers:
        raise ConfigError(
            f"loss.class_weights={weights}: give a number for each class, as in [2.0,1.0], or {MEDIAN_FREQUENCY}"
        )
    if len(weights) != num_classes:
        raise ConfigError(
            f"loss.class_weights has {len(weights)} values for dataset.num_classes={num_classes}; "
            "give one for each class"
        )


def _check_class_names(class_names: list[str]) -> None:
    if not class_names:
        return
    from fcnlab.metrics.names import why_refused  # not at the top: it imports numpy and OpenCV

    reason = why_refused(class_names)
    if reason is not None:
        raise ConfigError(f"dataset.class_names: {reason}")


def check_value_range(key: str, value_range: Sequence[int]) -> None:
    """Refuse a range of values that is not two numbers, the lower one first.

    Raises:
        ConfigError: If it is something else, and not empty.
    """
    if value_range and (len(value_range) != 2 or value_range[0] >= value_range[1]):
        raise ConfigError(
            f"{key}={list(value_range)}: give the lowest and the highest value of images of 16 bits, as in [0,4095]"
        )


def _check_dataset(dataset: DatasetConfig) -> None:
    check_value_range("dataset.value_range", dataset.value_range)
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
    _check_class_names(dataset.class_names)
    if dataset.palette and (
        len(dataset.palette) != dataset.num_classes
        or any(len(colour) != 3 or not all(0 <= value <= 255 for value in colour) for colour in dataset.palette)
    ):
        raise ConfigError(
            f"dataset.palette={dataset.palette}: give red, green and blue from 0 to 255 for each of the "
            f"dataset.num_classes={dataset.num_classes} classes, as in [[0,0,0],[255,255,255]]"
        )
    for key in ("mean", "std"):
        values = getattr(dataset, key)
        if len(values) != dataset.channels:
            what = "three values, for red, green and blue" if dataset.channels == 3 else f"{dataset.channels} values"
            raise ConfigError(
                f"dataset.{key}={values}: give {what}, one for each of dataset.channels={dataset.channels}; "
                "fcnlab.prepare computes them"
            )
