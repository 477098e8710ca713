"""``python -m fcnlab.evaluate``: measure a trained network on labelled images."""

from __future__ import annotations

import dataclasses
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import DatasetConfig, EvaluateConfig
from fcnlab.core.errors import ConfigError, FcnlabError

if TYPE_CHECKING:
    from rich.table import Table

    from fcnlab.data.dataset import Dataset
    from fcnlab.inference import TrainedNetwork
    from fcnlab.inference.measurement import Measurement

log = logging.getLogger(__name__)

_MEMBRANES = {"isbi2012": 0, "cells": 0}  # by data set, the class that parts cells


def evaluate(config: EvaluateConfig) -> Measurement:
    """Measure what a configuration describes, and write it to the output folder.

    Args:
        config: From ``fcnlab.config.compose([...], "evaluate")``, or built by hand.

    Raises:
        FcnlabError: For everything that the user can mend.
    """
    configuration.validate(config)
    # Not at the top: `--help` and a wrong key should not wait for MindSpore.
    from rich import get_console

    from fcnlab.core import device
    from fcnlab.core.progress import tracked
    from fcnlab.experiment.loading import load
    from fcnlab.inference.measurement import Measurement, measure
    from fcnlab.inference.report import write_report
    from fcnlab.metrics import BoundaryF1, ConfusionMatrix, PartitionScores
    from fcnlab.metrics.names import told_apart
    from fcnlab.tracking.evaluation_log import RunLog

    device.configure(config.device, key="device")
    network = load(config.checkpoint, config.tracking.uri)
    dataset_config = fitted(config.dataset, network)
    dataset = open_split(dataset_config, config.split)
    run = RunLog(config) if config.log_to is not None else None  # before anything is computed: it may be wrong
    folder = Path(config.output or f"outputs/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}").expanduser()
    membrane = _MEMBRANES.get(dataset_config.name)
    measurement = Measurement(
        told_apart(network.class_names),
        ConfusionMatrix(network.num_classes, dataset_config.ignore_index),
        BoundaryF1(network.num_classes, dataset_config.ignore_index, config.boundary_tolerance),
        None if membrane is None else PartitionScores(),
    )
    log.info("%d images of %s (%s), output in %s", len(dataset), dataset.source, config.split, folder)
    results = measure(
        network,
        dataset,
        measurement,
        ignore_index=dataset_config.ignore_index,
        membrane=membrane,
        worst=config.worst,
        flip=config.flip,
        scales=config.scales,
        tile=config.tile,
    )
    for _ in tracked(results, len(dataset), "images", get_console()):
        pass
    description = {
        "checkpoint": config.checkpoint,
        "step": network.metadata.get("step"),
        "dataset": {"name": dataset_config.name, "source": dataset.source, "digest": dataset.fingerprint()},
        "split": config.split,
        "images": len(dataset),
        "flip": config.flip,
        "scales": list(config.scales),
        "boundary_tolerance": config.boundary_tolerance,
    }
    write_report(measurement, description, folder, network.palette)
    get_console().print(summary_table(measurement, f"{config.checkpoint} on {dataset_config.name}, {config.split}"))
    if run is not None:
        run.log(measurement, folder, network.metadata.get("step", 0))
    return measurement


def fitted(config: DatasetConfig, network: TrainedNetwork) -> DatasetConfig:
    """A data set's configuration with the checkpoint's number of classes, channels and bits.

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
    elif not kind.keys() <= {item.name for item in dataclasses.fields(config)}:
        raise ConfigError(
            f"dataset={config.name}: its images have {config.channels} channels of {config.bits} bits, and the "
            f"checkpoint takes {network.channels} of {network.bits}; evaluate on dataset=folder"
        )
    return dataclasses.replace(config, num_classes=network.num_classes, **kind)


def open_split(config: DatasetConfig, split: str) -> Dataset:
    """Open ``train``, ``val``, or both as ``all``, and check every file that is not known to be good.

    Raises:
        DataError: Naming the first file, key or value that is wrong.
    """
    from fcnlab.data.dataset import SPLITS, Joined
    from fcnlab.data.remembered import Remembered
    from fcnlab.registry import DATASETS

    factory = DATASETS.get(config.name)
    parts = [Remembered(factory(config, name)) for name in (SPLITS if split == "all" else (split,))]
    dataset = parts[0] if len(parts) == 1 else Joined(parts)
    dataset.check()
    return dataset


def summary_table(measurement: Measurement, title: str) -> Table:
    """The scores of each class above those of all."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("class", "IoU", "Dice", "boundary F1", "pixels", title=escape(title), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    confusion = measurement.confusion
    pixels = confusion.counts.sum(axis=1)
    columns = (confusion.iou, confusion.dice, measurement.boundary.scores)
    for name, count, *scores in zip(measurement.class_names, pixels, *columns, strict=True):
        table.add_row(escape(name), *(f"{score:.4f}" for score in scores), f"{count / max(pixels.sum(), 1):.1%}")
    table.add_section()
    for name, value in measurement.metrics.items():
        if "/" not in name:
            table.add_row(name.replace("_", " "), f"{value:.4f}")
    return table


@hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="evaluate")
def _command(node: DictConfig) -> None:
    try:
        evaluate(configuration.from_node(node))
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))


if __name__ == "__main__":
    command.run(_command, EvaluateConfig)
