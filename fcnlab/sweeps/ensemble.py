"""``checkpoint=<sweep>``: the networks of a sweep over folds or seeds as one."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.comparison.groups import group_trials
from fcnlab.comparison.trials import read_folder
from fcnlab.core.errors import CheckpointError, TrackingError
from fcnlab.recording import journal
from fcnlab.sweeps import manifest, result

if TYPE_CHECKING:
    from fcnlab.inference.ensemble import Ensemble
    from fcnlab.inference.trained import TrainedNetwork

log = logging.getLogger(__name__)


def load(source: str, tracking_uri: str | None = None, measures: bool = False) -> tuple[TrainedNetwork | Ensemble, str]:
    """Load the network of a checkpoint, or all networks of a sweep.

    Args:
        source: What `fcnlab.experiment.loading.load` takes, or the folder of a sweep over folds or seeds.
        tracking_uri: The tracking store; by default that of ``MLFLOW_TRACKING_URI``, else ``mlflow.db``.
        measures: Whether the network is to be measured, for which some images are too easy for networks of folds.

    Returns:
        The network, or the ensemble of the best networks of all trials, and a digest of the files.

    Raises:
        CheckpointError: If there is no such checkpoint, or the trials of the sweep are not repetitions of one training.
    """
    from fcnlab.experiment.loading import checkpoint_file, read_network
    from fcnlab.inference.ensemble import Ensemble
    from fcnlab.inference.prediction import file_digest

    folder = Path(source).expanduser()
    if not folder.is_dir() or manifest.read(folder) is None:
        with checkpoint_file(source, tracking_uri) as path:
            return read_network(path, source), file_digest(path)
    paths = checkpoints(folder)
    log.info("%d networks of %s, whose probabilities are averaged", len(paths), source)
    if measures and any(read_folder(path.parent.parent).fold for path in paths):
        log.warning(
            "%s: each network of a fold was trained on the images that another one was validated on; measure them on "
            "images that none of them has seen, or the result is too good",
            source,
        )
    digest = hashlib.sha256("".join(map(file_digest, paths)).encode()).hexdigest()[:32]
    return Ensemble([read_network(path, str(path)) for path in paths], source), digest


def checkpoints(folder: Path) -> list[Path]:
    """Return the best weights of each trial of a sweep, by number.

    Raises:
        CheckpointError: If the sweep or a trial is not finished, a trial has none, or trials differ in more than fold
            and seed.
    """
    trials = result.read_all(folder)
    unfinished = [trial for trial in trials if trial.status != "finished"]
    if unfinished or not trials:
        what = (
            f"trial {unfinished[0].number} is {unfinished[0].status}" if unfinished else "none of its trials has begun"
        )
        raise CheckpointError(
            f"{folder}: {what}, so that its networks are no whole ensemble; finish it: sweep.resume={folder}"
        )
    if (status := _end(folder)) not in (None, "finished"):
        raise CheckpointError(
            f"{folder}: the sweep is {status}, so that trials may be missing and its networks are no whole ensemble; "
            f"finish it: sweep.resume={folder}"
        )
    paths = [Path(trial.folder) / journal.CHECKPOINTS / "best.safetensors" for trial in trials]
    for trial, path in zip(trials, paths, strict=True):
        if not path.is_file():
            raise CheckpointError(f"{folder}: trial {trial.number} has no {path}")
    try:
        trainings = [read_folder(Path(trial.folder)) for trial in trials]
    except TrackingError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    axes, groups = group_trials(trainings, trainings[0].monitor)
    if len(groups) > 1:
        raise CheckpointError(
            f"{folder}: its trials differ in {', '.join(axes)}; only those of a sweep over dataset.fold or seed alone"
            " are averaged; give one trial's folder"
        )
    return paths


def _end(folder: Path) -> str | None:
    """Return how a sweep ended; None if its journal does not say so."""
    status = None
    if not (folder / journal.FILE).is_file():
        return None
    for entry in journal.read(folder / journal.FILE):
        if entry.kind in ("run", "resume"):
            status = "running or was killed"
        elif entry.kind == "end":
            status = entry.fields["status"]
    return status
