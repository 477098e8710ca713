"""``python -m fcnlab.evaluate``: measure a trained network on labelled images."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import EvaluateConfig
from fcnlab.core.errors import FcnlabError

if TYPE_CHECKING:
    from fcnlab.inference.measurement import Measurement

log = logging.getLogger(__name__)

_MEMBRANES = {"isbi2012": 0, "cells": 0}  # from data sets to their class that parts cells


@command.visible_log()
def evaluate(config: EvaluateConfig) -> Measurement:
    """Measure the network that a configuration names, and write the scores to the output folder.

    Args:
        config: What ``fcnlab.config.compose([...], "evaluate")`` returned, or a configuration built by hand.

    Raises:
        FcnlabError: For everything that the user can mend.
    """
    configuration.validate(config)
    # Not at the top: `--help` and a wrong key should not wait for MindSpore.
    from rich import get_console

    from fcnlab.core import device
    from fcnlab.core.progress import tracked
    from fcnlab.experiment.evaluation_data import fit_to_network, open_split
    from fcnlab.inference.evaluation_report import write_report
    from fcnlab.inference.measurement import Measurement, measure
    from fcnlab.inference.score_table import score_table
    from fcnlab.metrics.boundary import BoundaryF1
    from fcnlab.metrics.confusion import ConfusionMatrix
    from fcnlab.metrics.names import told_apart
    from fcnlab.metrics.partition import PartitionScores
    from fcnlab.sweeps import ensemble
    from fcnlab.tracking.evaluation_log import RunLog

    device.configure(config.device, key="device")
    network, _ = ensemble.load(config.checkpoint, config.tracking.uri, measures=True)
    dataset_config = fit_to_network(config.dataset, network)
    dataset = open_split(dataset_config, config.split)
    run = RunLog(config) if config.log_to is not None else None  # first, since log_to may be wrong
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
    get_console().print(score_table(measurement, f"{config.checkpoint} on {dataset_config.name}, {config.split}"))
    if run is not None:
        run.log(measurement, folder, network.metadata.get("step", 0))
    return measurement


@hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="evaluate")
def _command(node: DictConfig) -> None:
    try:
        evaluate(configuration.from_node(node, HydraConfig.get().overrides.task))
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))


if __name__ == "__main__":
    command.run(_command, EvaluateConfig)
