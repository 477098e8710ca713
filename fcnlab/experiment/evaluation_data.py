"""Opens the data set that a trained network is evaluated on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fcnlab.config import DatasetConfig, keys_with
from fcnlab.config.roles import Role
from fcnlab.core.errors import ConfigError

if TYPE_CHECKING:
    from fcnlab.data.dataset import Dataset
    from fcnlab.inference import TrainedNetwork


def fit_to_network(config: DatasetConfig, network: TrainedNetwork) -> DatasetConfig:
    """Return a data set's configuration with a network's number of classes, channels, bits and range of values.

    Raises:
        ConfigError: If the data set's classes have other names, or its images cannot have these channels.
    """
    named = list(config.class_names)
    if named and named != network.class_names:
        raise ConfigError(
            f"dataset.class_names={named}: the checkpoint's classes are {network.class_names}; evaluate on data with "
            "these classes, or set dataset.class_names=[] if they are the same ones under other names"
        )
    if config.ignore_index < network.num_classes:
        raise ConfigError(
            f"dataset.ignore_index={config.ignore_index}: is one of the checkpoint's {network.num_classes} classes"
        )
    kind = {"channels": network.channels, "bits": network.bits}
    if kind == {key: getattr(config, key) for key in kind}:
        kind = {}
    elif not kind.keys() <= _keys(config):
        raise ConfigError(
            f"dataset={config.name}: its images have {config.channels} channels of {config.bits} bits, and the "
            f"checkpoint takes {network.channels} of {network.bits}; evaluate on dataset=folder"
        )
    if network.value_range and not config.value_range and "value_range" in _keys(config):
        kind["value_range"] = network.value_range  # Another scanner's images may declare a range of their own.
    return dataclasses.replace(config, num_classes=network.num_classes, **kind)


def _keys(config: DatasetConfig) -> set[str]:
    return {item.name for item in dataclasses.fields(config)}


def open_split(config: DatasetConfig, split: str) -> Dataset:
    """Open ``train``, ``val``, both of them as ``all``, or ``test``, and check every file that is not known to be good.

    Raises:
        ConfigError: If the data set has no test split, or a share of the training images is asked for.
        DataError: If a file, key or value is wrong; the text names the first one.
    """
    from fcnlab.data.cached_checks import CachedChecks
    from fcnlab.data.dataset import SPLITS, TEST
    from fcnlab.data.test_split import open_test
    from fcnlab.data.wrappers import Joined
    from fcnlab.registry import DATASETS

    if config.train_share != 1:
        raise ConfigError(
            f"dataset.train_share={config.train_share:g}: belongs to a training, whose seed draws the share; evaluate "
            "measures whole splits, so leave it out"
        )
    factory = DATASETS.get(config.name)
    keys = keys_with(Role.READS, config)
    if split == TEST:
        opened = [open_test(factory, config)]
    else:
        opened = [factory(config, name) for name in (SPLITS if split == "all" else (split,))]
    if opened[0] is None:
        raise ConfigError(
            f"split={TEST}: dataset={config.name} has no test split, or validates on it; fcnlab.prepare keeps images "
            "for one with test_fraction=0.2"
        )
    parts = [CachedChecks(part, keys) for part in opened]
    dataset = parts[0] if len(parts) == 1 else Joined(parts)
    dataset.check()
    return dataset
