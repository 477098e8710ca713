"""``python -m fcnlab.export``: write a trained network for other programs, and check what was written."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import ExportConfig
from fcnlab.core.errors import FcnlabError


@command.visible_log()
def export(config: ExportConfig) -> Path:
    """Write a network and check that what was written computes the same logits.

    Args:
        config: What ``fcnlab.config.compose([...], "export")`` returned, or a configuration built by hand.

    Returns:
        The file.

    Raises:
        FcnlabError: For everything that the user can mend. No new file is left then, and an older one stays.
    """
    configuration.validate(config)
    # Not at the top: `--help` and a wrong key should not wait for MindSpore.
    from fcnlab.core import device
    from fcnlab.experiment.exporting import check_layout, default_path, export_network
    from fcnlab.experiment.loading import load
    from fcnlab.kernels import stock_operators

    check_layout(config.format, config.layout)
    device.configure(config.device, key="device")
    path = Path(config.output).expanduser() if config.output else default_path(config.checkpoint, config.format)
    with stock_operators():  # other programs do not have ours
        export_network(load(config.checkpoint, config.tracking.uri), path, config.format, config.layout)
    return path


@hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="export")
def _command(node: DictConfig) -> None:
    try:
        export(configuration.from_node(node))
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))


if __name__ == "__main__":
    command.run(_command, ExportConfig)
