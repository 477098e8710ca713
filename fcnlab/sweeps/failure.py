"""Says in a trial's run why the trial failed, if its process could not say it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab import config as configuration
from fcnlab.comparison.trials import read_folder
from fcnlab.core.errors import FcnlabError, TrackingError, first_line
from fcnlab.experiment import resume
from fcnlab.recording import journal
from fcnlab.recording.tags import REASON_TAG, SWEEP_TAG, TRIAL_TAG
from fcnlab.sweeps.result import TrialResult
from fcnlab.sweeps.task import Task
from fcnlab.tracking.annotation import annotate, record_failure

log = logging.getLogger(__name__)


def record(node: DictConfig, result: TrialResult) -> None:
    """Add the reason to the trial's run; a trial that never began gets a run that says it.

    Args:
        node: What Hydra composed for the trial, which may be no valid configuration.
        result: The failed trial, which gets the id of the run.
    """
    folder = Path(result.folder)
    if _holds_another(node, result.overrides, folder):
        return
    try:
        tracking = OmegaConf.to_object(node.tracking)
        params = {key: str(value) for key, value in configuration.flatten(OmegaConf.to_container(node)).items()}
        tags = {SWEEP_TAG: params["sweep.id"], TRIAL_TAG: str(result.number), REASON_TAG: result.reason}
        name = f"{params.get('arch.name')}-{params.get('dataset.name')}-seed{params.get('seed')}"
        result.run_id = record_failure(folder, tracking, name, params, tags) or result.run_id
    except (FcnlabError, OSError, OmegaConfBaseException) as error:
        log.warning("trial %d: its failure is not recorded in its run (%s)", result.number, first_line(error))


def forget(task: Task) -> None:
    """Empty the reason of an earlier attempt, after the trial has succeeded."""
    try:
        if read_folder(task.folder).reason:
            annotate(task.folder, task.config.tracking, {REASON_TAG: ""})
    except TrackingError as error:
        log.warning("%s", error)


def _holds_another(node: DictConfig, overrides: Sequence[str], folder: Path) -> bool:
    """Return whether a folder's journal belongs to a training that the failed trial has nothing to say about."""
    if not (folder / journal.FILE).is_file():
        return False
    try:
        return journal.is_finished(folder) or not resume.is_of(configuration.from_node(node, overrides), folder)
    except FcnlabError:
        return True
