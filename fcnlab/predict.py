"""``python -m fcnlab.predict``: label the images of a file, folder, pattern or video with a trained network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import PredictConfig
from fcnlab.core.errors import FcnlabError

if TYPE_CHECKING:
    from fcnlab.inference.prediction import PredictionOutcome

log = logging.getLogger(__name__)


@command.visible_log()
def predict(config: PredictConfig) -> PredictionOutcome:
    """Label the images that a configuration names.

    Args:
        config: What ``fcnlab.config.compose([...], "predict")`` returned, or a configuration built by hand.

    Returns:
        The images that were labelled, that were skipped and that could not be read.

    Raises:
        FcnlabError: For everything that the user can mend, except images that cannot be read.
    """
    configuration.validate(config)
    # Not at the top: `--help` and a wrong key should not wait for MindSpore.
    from rich import get_console

    from fcnlab.core import device
    from fcnlab.core.progress import tracked
    from fcnlab.data.unlabelled import find
    from fcnlab.inference.prediction import (
        OutputFolder,
        PredictionOptions,
        PredictionOutcome,
        label_all,
        list_images,
    )
    from fcnlab.sweeps import ensemble

    folder = Path(config.output).expanduser()
    sources = find(config.input, without=folder)
    device.configure(config.device, key="device")
    network, digest = ensemble.load(config.checkpoint, config.tracking.uri)
    options = PredictionOptions(
        config.flip, tuple(config.scales), config.tile, config.overlays, config.probabilities, config.review
    )
    output = OutputFolder(folder, options)
    outcome = PredictionOutcome()
    pictures = list_images(sources, outcome, network)
    output.claim(digest, pictures, config.overwrite)
    wanted = [picture for picture in pictures if config.overwrite or not output.has(picture.name)]
    outcome.skipped = len(pictures) - len(wanted)
    log.info("%s, classes %s", network.metadata["arch"]["name"], ", ".join(network.class_names))
    log.info("%d images to label, %d are there already, output in %s", len(wanted), outcome.skipped, folder)
    for _ in tracked(label_all(network, wanted, output, options, outcome), len(wanted), "images", get_console()):
        pass
    log.info("%d labelled, %d skipped, %d failed", len(outcome.written), outcome.skipped, len(outcome.failed))
    return outcome


@hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="predict")
def _command(node: DictConfig) -> None:
    try:
        outcome = predict(configuration.from_node(node))
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))
    if outcome.failed:
        count = len(outcome.failed)
        more = f" (and {count - 1} more, see above)" if count > 1 else ""
        command.leave(command.EXIT_ERROR, f"{outcome.failed[0]}{more}; the rest is labelled")


if __name__ == "__main__":
    command.run(_command, PredictConfig)
