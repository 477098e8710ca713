"""Reads recorded trainings, from their journals or from a tracking store, for a comparison."""

from __future__ import annotations

import ast
import math
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab import config as configuration
from fcnlab.core.errors import DataError, TrackingError
from fcnlab.metrics.image_counts import ImageCounts
from fcnlab.metrics.names import class_names, higher_is_better, read_all
from fcnlab.recording import image_tables, journal
from fcnlab.recording.inputs import count_of
from fcnlab.recording.tags import (
    OVERRIDES_TAG,
    PARAMETERS_TAG,
    PRUNED_TAG,
    REASON_TAG,
    ROLE_TAG,
    STARTS_FROM_TAG,
    SWEEP_TAG,
    WEIGHTS_TAG,
)
from fcnlab.recording.training_time import TrainingTime

if TYPE_CHECKING:
    from fcnlab.tracking.store import Store

Series = Sequence[tuple[int, float]]
_RATE = "train/images_per_second"
_EVALUATED = ("val/", "test/")
_WEIGHTS = "loss.class_weights"

FOLD = "dataset.fold"
"""The key of the fold that a training is validated on. Folds are repetitions, as seeds are."""


@dataclass(frozen=True)
class Trial:
    """A training that was recorded.

    Attributes:
        run_id: The id of its MLflow run; empty if it has none.
        name: The name of its run.
        status: ``FINISHED``, ``FAILED``, ``KILLED`` or ``RUNNING``.
        params: The dotted keys of its configuration with their values, as text.
        metrics: The ``val/...`` metrics of the best evaluation by its ``trainer.monitor``, and the ``test/...`` metrics
            of its weights, under their Python names.
        best_step: The step of its best evaluation.
        history: The steps and values of the monitored metric.
        seconds: The time from its start to its end, without the time between an interruption and its resumption.
        images_per_second: The median over its steps without the first; NaN if there is none.
        validation_digest: The digest of its validation images.
        training_images: The number of its training images; None if the run does not say it.
        tags: All tags of its run.
        image_counts: The confusion matrix of each validation image at its best evaluation; None if there are none.
        why_no_counts: Why there are none, as the second half of a sentence, if that is known.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_step: int | None = None
    history: Series = ()
    seconds: float = math.nan
    images_per_second: float = math.nan
    validation_digest: str | None = None
    training_images: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    image_counts: ImageCounts | None = None
    why_no_counts: str | None = None

    @property
    def monitor(self) -> str:
        """The metric that its best evaluation was chosen by."""
        return self.params.get("trainer.monitor", "val/mean_iou")

    @property
    def seed(self) -> str:
        """The seed of the training."""
        return self.params.get("seed", "")

    @property
    def fold(self) -> str:
        """The fold that it was validated on, if its data set has folds; empty otherwise."""
        fold = self.params.get(FOLD, "")
        return "" if fold == "None" else fold

    @property
    def pair(self) -> str:
        """What a training of another group must have in common with it, so that their difference counts."""
        return f"seed {self.seed}, fold {self.fold}" if self.fold else self.seed

    @property
    def class_names(self) -> list[str]:
        """The names of its classes; those of its counts of images if its configuration gives none."""
        count = 0 if self.image_counts is None else self.image_counts.counts.shape[1]
        return class_names(_class_names(self.params), count)

    @property
    def given(self) -> set[str]:
        """The keys that its command line or its sweep set; a choice of a group counts as the group's ``name``."""
        try:
            overrides = shlex.split(self.tags.get(OVERRIDES_TAG, ""))
        except ValueError:  # the tag was cut in the middle of an override
            return set()
        keys = {override.lstrip("+~").partition("=")[0] for override in overrides}
        if STARTS_FROM_TAG in self.tags:  # its sweep has set this
            keys.discard("init_from")
        return {key if key in self.params else f"{key}.name" for key in keys}

    def setting(self, key: str) -> str:
        """Return the value of a key by which trainings are compared; empty if the training has none.

        A key that a training was recorded without had its default, if it is a key of the training's options today.

        Trials of a later stage of a sweep started from trials that differ in their seeds, as they do, and so have equal
        settings. So do trials of different folds whose class weights were computed from the labels of each.
        """
        if key == _WEIGHTS and self.fold and self._computes_weights:
            return configuration.MEDIAN_FREQUENCY
        if key == "init_from" and STARTS_FROM_TAG in self.tags:
            return "the stage before"
        if key in self.params:
            return self.params[key]
        return configuration.recorded_defaults(self.params).get(key, "")

    @property
    def _computes_weights(self) -> bool:
        """Whether its class weights were computed from its labels; earlier versions have it in the overrides alone."""
        word = f"{_WEIGHTS}={configuration.MEDIAN_FREQUENCY}"
        return WEIGHTS_TAG in self.tags or word in self.tags.get(OVERRIDES_TAG, "")

    @property
    def parameters(self) -> int | None:
        """The number of the network's parameters; None if the run does not say it."""
        count = self.tags.get(PARAMETERS_TAG, "")
        return int(count) if count.isdecimal() else None

    @property
    def reason(self) -> str | None:
        """Why the training failed, if its run says so."""
        return self.tags.get(REASON_TAG)

    @property
    def pruned(self) -> bool:
        """Whether a search pruned the training."""
        return self.tags.get(PRUNED_TAG) == "true"

    @property
    def complete(self) -> bool:
        """Whether the training ran to its end, so that its best value is not just the best so far."""
        return self.status == "FINISHED" and not self.pruned

    @property
    def value(self) -> float:
        """The best value of the monitored metric; NaN if the training was never evaluated."""
        return self.metrics.get(self.monitor, math.nan)


def read_folder(folder: Path) -> Trial:
    """Read a training from its output folder.

    Raises:
        TrackingError: If there is no journal, or it does not begin with a run.
    """
    entries = list(journal.read(folder / journal.FILE))
    run = next((entry.fields for entry in entries if entry.kind == "run"), None)
    if run is None:
        raise TrackingError(f"{folder / journal.FILE}: does not begin with a run")
    tags, status, time = dict(run["tags"]), "RUNNING", TrainingTime()
    digests: dict[str, str] = {}
    images: dict[str, int] = {}
    for entry in entries:
        time.add(entry)
        if entry.kind == "tags":
            tags |= entry.fields["values"]
        elif entry.kind == "inputs":
            digests = {item["context"]: item["digest"] for item in entry.fields["datasets"]}
            images = {item["context"]: count_of(item.get("profile", "")) for item in entry.fields["datasets"]}
        elif entry.kind == "resume":
            status = "RUNNING"
        elif entry.kind == "end":
            status = journal.MLFLOW_STATUS.get(entry.fields["status"], "FAILED")
    return _trial(
        journal.metrics(entries, _class_names(run["params"])),
        run_id=journal.sent_to(folder) or "",
        name=run["name"],
        status=status,
        params=run["params"],
        seconds=time.seconds,
        validation_digest=digests.get("validation"),
        training_images=images.get("training"),
        tags=tags,
        **_counts_of((folder / image_tables.BEST).read_bytes if (folder / image_tables.BEST).is_file() else None),
    )


def read_trials(
    store: Store,
    *,
    sweep: str | None = None,
    experiment: str | None = None,
    filter: str | None = None,
    runs: Sequence[str] | None = None,
) -> list[Trial]:
    """Read trainings from a tracking store, without the parent runs of sweeps.

    Args:
        store: The store that holds them.
        sweep: A sweep's id, or the id of its parent run.
        experiment: The name of an experiment.
        filter: A condition in the language of MLflow's search.
        runs: The ids of the only runs to return.

    Returns:
        The trainings in the order in which they were begun.

    Raises:
        TrackingError: If the store cannot be reached or does not understand the filter, or if a run is not there.
    """
    from fcnlab.tracking.run_reader import digests_of, image_counts_of  # not at the top: it imports MLflow

    conditions = [filter] if filter else []
    if sweep is not None:
        if store.has_run(sweep):
            sweep = store.tag(sweep, SWEEP_TAG) or sweep
        conditions.append(f"tags.`{SWEEP_TAG}` = '{sweep}'")
    found = []
    for run in store.search_runs(experiment, " and ".join(conditions)):
        if run.data.tags.get(ROLE_TAG) == "sweep" or (runs is not None and run.info.run_id not in runs):
            continue
        keys = [key for key in run.data.metrics if key.startswith(_EVALUATED) or key == _RATE]
        found.append(
            _trial(
                read_all(store.histories(run.info.run_id, keys), _class_names(run.data.params)),
                run_id=run.info.run_id,
                name=run.info.run_name,
                status=run.info.status,
                params=dict(run.data.params),
                seconds=(run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else math.nan,
                validation_digest=digests_of(run).get("validation"),
                training_images=image_counts_of(run).get("training"),
                tags=dict(run.data.tags),
                **_counts_of(_artifact(store, run.info.run_id, run.info.status)),
            )
        )
    missing = set(runs or ()) - {trial.run_id for trial in found}
    if missing:
        raise TrackingError(f"runs=[{min(missing)}]: no such training, or not among the others that were asked for")
    return found


def _artifact(store: Store, run_id: str, status: str) -> Callable[[], bytes] | None:
    """Return what reads the counts of a run's images; None if the run has none, or is none that counts."""
    if status != "FINISHED" or not store.has_artifact(run_id, image_tables.BEST):
        return None
    return partial(store.read_bytes, run_id, image_tables.BEST)


def _counts_of(read: Callable[[], bytes] | None) -> dict[str, Any]:
    """Return the counts of the images as `Trial` takes them, or why they cannot be read: that is no error."""
    if read is None:
        return {}
    try:
        return {"image_counts": ImageCounts.read(read())}
    except (OSError, TrackingError, DataError):
        return {"why_no_counts": f"have an {image_tables.BEST} that cannot be read"}


def _trial(series: Mapping[str, Series], **recorded: Any) -> Trial:
    """Build a trial from every metric's points and from what its run holds beside them."""
    latest = {metric: dict(points) for metric, points in series.items()}  # a repeated step counts once
    trial = Trial(**recorded)
    history = sorted(latest.get(trial.monitor, {}).items())
    step = _best_step(trial.monitor, history)
    metrics = {key: points[step] for key, points in latest.items() if key.startswith(_EVALUATED) and step in points}
    rates = [rate for _, rate in sorted(latest.get(_RATE, {}).items())][1:]
    speed = statistics.median(rates) if rates else math.nan
    return replace(trial, metrics=metrics, best_step=step, history=history, images_per_second=speed)


def _class_names(params: Mapping[str, str]) -> list[str]:
    """Return the recorded names of the classes; none if they were cut, since a tracking store limits their length."""
    found = parse(params.get("dataset.class_names", ""))
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _best_step(monitor: str, history: Series) -> int | None:
    """Return the step of the best value, the first one of several, as the trainer does."""
    numbers = [(step, value) for step, value in history if not math.isnan(value)]
    if not numbers:
        return history[0][0] if history else None
    pick = max if higher_is_better(monitor) else min
    return pick(numbers, key=lambda point: point[1])[0]


def parse(value: str) -> Any:
    """Turn a recorded parameter into a number, a truth value or a list; any other text stays text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
