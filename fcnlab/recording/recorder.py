"""Records a training in its output folder: in a journal, and in files that the journal lists. It needs no MLflow."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.core.credentials import redact
from fcnlab.core.files import remove_partial, replacing
from fcnlab.metrics.names import higher_is_better, recorded
from fcnlab.recording import image_tables, journal, note, overlays, provenance, run_figures, worker_history
from fcnlab.recording.already_recorded import AlreadyRecorded
from fcnlab.recording.background_figures import BackgroundFigures, Draw
from fcnlab.recording.image_keys import image_key
from fcnlab.recording.inputs import Input
from fcnlab.recording.journal import Journal
from fcnlab.recording.system_metrics import SystemMetrics
from fcnlab.recording.tags import (
    FOLDER_TAG,
    INITIAL_RUN_TAG,
    INITIALISED_TAG,
    PARAMETERS_TAG,
    STARTS_FROM_TAG,
    SWEEP_TAG,
    TRIAL_TAG,
    WORKERS_TAG,
)
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationEvent, Plan, Status, StepEvent

if TYPE_CHECKING:
    from fcnlab.models.foreign import Initialisation

log = logging.getLogger(__name__)

INITIALISATION_FILE = "init_from.txt"
"""The file that says of each parameter where its initial value came from."""


class Recorder(Callback):
    """Records a training in its folder: configuration, metrics, overlays, figures, and a journal that lists them all.

    Args:
        config: The whole configuration.
        folder: The run's output folder.
        inputs: The images of the training, of the validation and, if there are any, of the test.
        parameters: The number of the network's parameters.
        overrides: The overrides that Hydra was given.
        resumed: Whether the training resumes the one that the folder holds. Steps that were recorded after the last
            saved state are trained again; a value that is recorded already is not recorded twice.
        trial: The trial's number if the training is a trial of the sweep ``config.sweep.id``.
        draw: Draws the figures in another process; None to draw them in a thread.
        initialisation: The weights that the network started from; None if it started from random ones.
        more_tags: Further tags of the run.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        inputs: Sequence[Input],
        parameters: int,
        overrides: Sequence[str] = (),
        resumed: bool = False,
        trial: int | None = None,
        draw: Draw | None = None,
        initialisation: Initialisation | None = None,
        more_tags: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.inputs = inputs
        self.parameters = parameters
        self.overrides = overrides
        self.resumed = resumed
        self.trial = trial
        self.initialisation = initialisation
        self.more_tags = dict(more_tags or {})
        self._already = AlreadyRecorded()
        self._differs = False
        self._journal: Journal | None = None
        self._system_metrics: SystemMetrics | None = None
        self._figures = BackgroundFigures(folder, draw)
        self._best: EvaluationEvent | None = None
        self._tested: EvaluationEvent | None = None
        self._checkpoints: dict[CheckpointKind, Path] = {}
        self._has_recorded_checkpoints = False

    def on_start(self, plan: Plan) -> None:
        git = provenance.git_state(provenance.repository_folder())
        command = provenance.command_line()
        self._summary = note.Summary(self.config, self.parameters, self.inputs, command, git)
        self._began = time.monotonic()
        self._journal = Journal(self.folder, exist_ok=self.resumed)
        for name in (".", run_figures.FOLDER, overlays.FOLDER, image_tables.FOLDER):
            remove_partial(self.folder / name)
        self._already = AlreadyRecorded.read(self.folder / journal.FILE, plan.first_step)
        self._best = plan.best
        self._first_step, self._last_step = plan.first_step + 1, plan.total_steps
        self._config_text = redact(configuration.to_yaml(self.config))
        if self._already.begun:
            steps = ", ".join(map(str, [*self._already.resumed_at, plan.first_step]))
            tags = {"resumed_at_steps": steps[-provenance.MAX_TAG_LENGTH :]}
            count = worker_history.counts(self.more_tags.get(WORKERS_TAG))[-1]
            workers = worker_history.resumed(self._already.workers, count, plan.first_step)
            if workers != self._already.workers:
                tags[WORKERS_TAG] = workers[-provenance.MAX_TAG_LENGTH :]
            # The configuration is listed even if it has not changed: the process before may have been killed just then.
            self._write_file(configuration.RECORD_FILE, self._config_text)
            resume = [("resume", {"step": plan.first_step}), ("tags", {"values": tags})]
            self._journal.append_all([*resume, *self._lost_beginning(), _listed(configuration.RECORD_FILE)])
        else:
            self._record_run(command, git)
        self._record_note("running")
        if self.config.tracking.system_metrics_every is not None:
            every = self.config.tracking.system_metrics_every
            first = self._already.system_readings
            self._system_metrics = SystemMetrics(every, self._record_metrics, self.folder, first)
            self._system_metrics.start()

    def on_step(self, record: StepEvent) -> None:
        if record.step == self._first_step:  # not before: until then, the compiler needs the processor
            self._figures.prepare()
        measured = ["loss", "learning_rate", "images_per_second", "data_wait_fraction"]
        if record.loss_scale is not None:
            measured += ["loss_scale", "overflows"]
        self._record_once(record.step, {f"train/{name}": getattr(record, name) for name in measured}, "train/loss")

    def on_evaluation(self, record: EvaluationEvent) -> None:
        if record.improved:
            self._best = record
        image_tables.write(self.folder, record)
        metrics = {recorded(name): value for name, value in record.evaluation.metrics.items()}
        self._record_once(record.step, metrics, "val/loss")
        for shown, path in overlays.write_overlays(self.folder, record, self.config.dataset):
            if self._relative(path) not in self._already.overlays:
                self._journal.append("image", path=self._relative(path), key=image_key(shown), step=record.step)
        self._journal.flush()
        if record.step == self._last_step:  # the figures do not change any more
            self._figures.start(self._best)

    def on_test(self, record: EvaluationEvent) -> None:
        self._tested = record
        metrics = {recorded(name): value for name, value in record.evaluation.metrics.items()}
        self._record_once(record.step, metrics, "test/loss")

    def before_state(self) -> dict[str, Any]:
        self._journal.flush()
        return {
            "config": self._config_text,
            "inputs": {item.context: item.digest for item in self.inputs},
        }

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        self._checkpoints[kind] = path
        if kind == "last":  # no checkpoint changes any more, so they can be sent while the figures are drawn
            self._record_checkpoints()

    def on_end(self, status: Status) -> None:
        if self._journal is None:
            return
        try:
            if self._system_metrics is not None:
                self._system_metrics.stop()
            if status != "finished":  # the process may be ended soon: what must not be lost comes first
                self._journal.append("end", status=status)
            self._record_results(status)
            if status == "finished":
                self._journal.append("end", status=status)
            self._journal.flush()
        finally:
            self._journal.close()

    def _record_run(self, command: Sequence[str], git: provenance.GitState | None) -> None:
        own = self.config.sweep
        sweep = {SWEEP_TAG: own.id, TRIAL_TAG: self.trial, STARTS_FROM_TAG: own.starts_from}
        start = {}
        if self.initialisation is not None:
            start[INITIALISED_TAG] = f"{self.initialisation.description}, sha256:{self.initialisation.sha256}"
            if run := journal.sent_to(self.initialisation.path.resolve().parent.parent):
                start[INITIAL_RUN_TAG] = run
        run = {
            "journal": uuid.uuid4().hex,
            "experiment": self.config.tracking.experiment,
            "name": self.config.tracking.run_name or default_run_name(self.config),
            "tags": {
                **provenance.tags(self.config, command, self.overrides, git),
                PARAMETERS_TAG: str(self.parameters),
                **{name: str(value) for name, value in sweep.items() if value is not None},
                **start,
                **self.more_tags,
                FOLDER_TAG: str(self.folder.resolve()),
            },
            "params": {key: redact(str(value)) for key, value in configuration.flatten(self.config).items()},
        }
        texts = {configuration.RECORD_FILE: self._config_text}
        if self.initialisation is not None:
            texts[INITIALISATION_FILE] = redact(self.initialisation.table()) + "\n"
        if git is not None and git.diff:
            texts[provenance.DIFF_FILE] = git.diff
        for name, text in texts.items():
            self._write_file(name, text)
        # All at once: a training that is killed before its first state was saved begins again, and this stays as it is.
        self._journal.append_all([("run", run), self._described_inputs(), *map(_listed, texts)])

    def _described_inputs(self) -> tuple[str, dict[str, Any]]:
        """Return the journal's entry for the images."""
        datasets = [
            {
                "name": item.name,
                "context": item.context,
                "digest": item.digest,
                "source": item.source,
                "profile": item.profile,
            }
            for item in self.inputs
        ]
        return "inputs", {"datasets": datasets}

    def _lost_beginning(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what a power cut took from the entries of the beginning; the files that they list are older."""
        inputs = [] if self._already.has_inputs else [self._described_inputs()]
        files = (INITIALISATION_FILE, provenance.DIFF_FILE)
        unlisted = (name for name in files if name not in self._already.files and (self.folder / name).is_file())
        return [*inputs, *map(_listed, unlisted)]

    def _record_results(self, status: Status) -> None:
        """Record the note, the checkpoints, the model and the figures.

        A training that was killed records neither model nor figures: they take seconds, and change if it is resumed.
        """
        self._record_note(status)
        self._record_checkpoints(with_model=status != "killed")
        if (self.folder / image_tables.FOLDER).is_dir():
            self._journal.append("artifact", path=image_tables.FOLDER, to=image_tables.FOLDER)
        registration = self._registration() if status == "finished" and "best" in self._checkpoints else None
        if registration is not None:
            self._record_model(registration)
        if status != "killed":  # last, so that everything else can be sent meanwhile
            self._figures.finish(self._best)
            if (self.folder / run_figures.FOLDER).is_dir():
                self._journal.append("artifact", path=run_figures.FOLDER, to=run_figures.FOLDER)

    def _record_checkpoints(self, with_model: bool = True) -> None:
        if self._has_recorded_checkpoints:
            return
        self._has_recorded_checkpoints = True
        for kind in ("best", "last"):
            if kind in self._checkpoints:
                self._journal.append("artifact", path=self._relative(self._checkpoints[kind]), to="checkpoints")
        if with_model and "best" in self._checkpoints:
            self._record_model(None)

    def _record_model(self, registration: dict[str, Any] | None) -> None:
        self._journal.append("model", checkpoint=self._relative(self._checkpoints["best"]), register=registration)

    def _registration(self) -> dict[str, Any] | None:
        """Return how to register the best model; None if it is not to be registered."""
        tracking, monitor = self.config.tracking, self.config.trainer.monitor
        if tracking.register_as is None or monitor not in self._best.evaluation.metrics:
            return None
        return {
            "name": tracking.register_as,
            "alias": tracking.alias,
            "monitor": monitor,
            "value": self._best.evaluation.metrics[monitor],
            "validation_digest": next(item.digest for item in self.inputs if item.context == "validation"),
            "higher_is_better": higher_is_better(monitor),
        }

    def _record_once(self, step: int, values: dict[str, float], loss: str) -> None:
        """Record metrics, unless the same ones were recorded before the training was interrupted.

        Args:
            step: The step that was measured.
            values: The metrics, which stand in one entry of the journal: all of them were recorded, or none.
            loss: The name of the loss among them. If it differs from the recorded one, the metrics are recorded again.
        """
        before = self._already.losses.get((loss, step))
        if before is None:
            self._record_metrics(step, values)
        elif before != values[loss] and not (math.isnan(before) and math.isnan(values[loss])):
            if not self._differs:
                log.warning(
                    "%s of step %d is %r, and was %r before the interruption: this machine, version or configuration "
                    "computes something else; metrics are recorded again from here on",
                    *(loss, step, values[loss], before),
                )
            self._differs = True
            self._record_metrics(step, values)

    def _record_metrics(self, step: int, values: dict[str, float]) -> None:
        self._journal.append("metrics", step=step, values=values)

    def _record_note(self, status: Literal["running"] | Status) -> None:
        seconds = self._already.seconds + time.monotonic() - self._began
        text = note.render(self._summary, status, seconds, self._best, self._tested)
        self._journal.append("tags", values={"mlflow.note.content": text})

    def _write_file(self, name: str, text: str) -> None:
        try:
            with replacing(self.folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise journal.cannot_write(self.folder / name, error) from error

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _listed(name: str) -> tuple[str, dict[str, Any]]:
    """Return the journal's entry for a file at the top of the artifacts."""
    return "artifact", {"path": name, "to": None}


def default_run_name(config: Config) -> str:
    """Return the name of a run that is given none, such as ``fcn8s-cells-seed0``."""
    return f"{config.arch.name}-{config.dataset.name}-seed{config.seed}"
