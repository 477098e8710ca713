"""Trainings as a comparison sees them, read from their journals or from a tracking store."""

from __future__ import annotations

import ast
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab.core.errors import TrackingError
from fcnlab.metrics.names import higher_is_better, read_all
from fcnlab.recording import journal
from fcnlab.recording.tags import OVERRIDES_TAG, PARAMETERS_TAG, PRUNED_TAG, REASON_TAG, ROLE_TAG, SWEEP_TAG
from fcnlab.recording.training_time import TrainingTime

if TYPE_CHECKING:
    from fcnlab.tracking.store import Store

Series = Sequence[tuple[int, float]]
_RATE = "train/images_per_second"


@dataclass(frozen=True)
class Trial:
    """A training that was recorded.

    Attributes:
        run_id: In MLflow; empty if it is not there.
        name: Of the run.
        status: ``FINISHED``, ``FAILED``, ``KILLED`` or ``RUNNING``.
        params: Dotted keys of the configuration to their values, as text.
        metrics: Every ``val/...`` metric of the best evaluation by the training's own ``trainer.monitor``, by its name
            in Python.
        best_step: Of that evaluation.
        history: Of the monitored metric: steps and values.
        parameters: How many the network has; None if the run does not say.
        seconds: From its start to its end, without the time between an interruption and going on.
        images_per_second: Median over its steps, without the first; NaN if there is none.
        validation_digest: Of the images it was measured on.
        tags: All of the run.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_step: int | None = None
    history: Series = ()
    parameters: int | None = None
    seconds: float = math.nan
    images_per_second: float = math.nan
    validation_digest: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def monitor(self) -> str:
        """The metric by which its best evaluation was chosen."""
        return self.params.get("trainer.monitor", "val/mean_iou")

    @property
    def seed(self) -> str:
        """Of the training."""
        return self.params.get("seed", "")

    @property
    def given(self) -> set[str]:
        """The keys that its command line or its sweep set; of a group, that of the name."""
        try:
            words = shlex.split(self.tags.get(OVERRIDES_TAG, ""))
        except ValueError:  # cut in the middle of a word
            return set()
        keys = {word.lstrip("+~").partition("=")[0] for word in words}
        return {key if key in self.params else f"{key}.name" for key in keys}

    @property
    def reason(self) -> str | None:
        """Why it failed, if it says so."""
        return self.tags.get(REASON_TAG)

    @property
    def pruned(self) -> bool:
        """Whether a search gave it up."""
        return self.tags.get(PRUNED_TAG) == "true"

    @property
    def complete(self) -> bool:
        """Whether it ran to its end, so that its best is what it reaches and not what it had reached by then."""
        return self.status == "FINISHED" and not self.pruned

    @property
    def value(self) -> float:
        """Of the monitored metric at its best; NaN if it was never evaluated."""
        return self.metrics.get(self.monitor, math.nan)


def read_folder(folder: Path) -> Trial:
    """Read a training from its output folder.

    Raises:
        TrackingError: If there is no journal, or it does not begin with a run.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    tags: dict[str, str] = {}
    params: dict[str, str] = {}
    digest, name, status = None, None, "RUNNING"
    time = TrainingTime()
    for entry in journal.read(folder / journal.FILE):
        fields = entry.fields
        time.add(entry)
        if entry.kind in ("run", "resume"):
            status = "RUNNING"
        if entry.kind == "run":
            name, params = fields["name"], dict(fields["params"])
            tags |= fields["tags"]
        elif entry.kind == "tags":
            tags |= fields["values"]
        elif entry.kind == "inputs":
            digest = next((item["digest"] for item in fields["datasets"] if item["context"] == "validation"), None)
        elif entry.kind == "metrics":
            for key, value in fields["values"].items():
                series.setdefault(key, []).append((fields["step"], value))
        elif entry.kind == "end":
            status = journal.MLFLOW_STATUS.get(fields["status"], "FAILED")
    if name is None:
        raise TrackingError(f"{folder / journal.FILE}: does not begin with a run")
    return _trial(journal.sent_to(folder) or "", name, status, params, series, time.seconds, digest, tags)


def read_trials(
    store: Store,
    *,
    sweep: str | None = None,
    experiment: str | None = None,
    filter: str | None = None,
    runs: Sequence[str] | None = None,
) -> list[Trial]:
    """Read trainings from a tracking store; the parents of sweeps are left out.

    Args:
        store: Where they are.
        sweep: A sweep's id, or the id of its parent run.
        experiment: Name of an experiment.
        filter: As MLflow's search takes it.
        runs: Ids, to have no others.

    Returns:
        In the order in which they were begun.

    Raises:
        TrackingError: If the store cannot be reached or does not understand the filter, or a run is not there.
    """
    from fcnlab.tracking.run_reader import digests_of  # not at the top: it imports MLflow

    conditions = [filter] if filter else []
    if sweep is not None:
        if store.has_run(sweep):
            sweep = store.tag(sweep, SWEEP_TAG) or sweep
        conditions.append(f"tags.`{SWEEP_TAG}` = '{sweep}'")
    found = []
    for run in store.search_runs(experiment, " and ".join(conditions)):
        if run.data.tags.get(ROLE_TAG) == "sweep" or (runs is not None and run.info.run_id not in runs):
            continue
        keys = [key for key in run.data.metrics if key.startswith("val/") or key == _RATE]
        series = store.histories(run.info.run_id, keys)
        found.append(
            _trial(
                run.info.run_id,
                run.info.run_name,
                run.info.status,
                run.data.params,
                series,
                (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else math.nan,
                digests_of(run).get("validation"),
                run.data.tags,
            )
        )
    missing = set(runs or ()) - {trial.run_id for trial in found}
    if missing:
        raise TrackingError(f"runs=[{min(missing)}]: no such training, or not among the others that were asked for")
    return found


def _trial(
    run_id: str,
    name: str,
    status: str,
    params: Mapping[str, str],
    series: Mapping[str, Series],
    seconds: float,
    digest: str | None,
    tags: Mapping[str, str],
) -> Trial:
    monitor = params.get("trainer.monitor", "val/mean_iou")
    series = read_all(series, _class_names(params))
    history = sorted(dict(series.get(monitor, ())).items())  # a step that was made again counts once
    step = _best_step(monitor, history)
    metrics = {
        key: dict(points)[step]
        for key, points in series.items()
        if key.startswith("val/") and step is not None and step in dict(points)
    }
    rates = [value for index, value in sorted(dict(series.get(_RATE, ())).items())][1:]
    count = tags.get(PARAMETERS_TAG, "")
    return Trial(
        run_id,
        name,
        status,
        dict(params),
        metrics,
        step,
        history,
        int(count) if count.isdecimal() else None,
        seconds,
        statistics.median(rates) if rates else math.nan,
        digest,
        dict(tags),
    )


def _class_names(params: Mapping[str, str]) -> list[str]:
    """Of a training that was given them; a tracking store cuts a list that is too long, which is then none."""
    found = parse(params.get("dataset.class_names", ""))
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _best_step(monitor: str, history: Series) -> int | None:
    """Of the best value, the first where there are several, as the trainer keeps it."""
    numbers = [(step, value) for step, value in history if not math.isnan(value)]
    if not numbers:
        return history[0][0] if history else None
    pick = max if higher_is_better(monitor) else min
    return pick(numbers, key=lambda point: point[1])[0]


def parse(value: str) -> Any:
    """A recorded parameter as a value: a number, a truth value, a list; text that is none of these stays text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
