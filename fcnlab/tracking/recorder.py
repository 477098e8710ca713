"""What a run holds, written to its folder and its journal as it happens. Knows no MLflow."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.credentials import redact
from fcnlab.tracking import figures, journal, note, provenance
from fcnlab.tracking.images import allowed_name, comparison, write_png
from fcnlab.tracking.journal import Journal
from fcnlab.tracking.system_metrics import SystemMetrics
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationRecord, Plan, Status, StepRecord
from fcnlab.training.evaluation import higher_is_better

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """Images that a training uses.

    Attributes:
        name: Of the data set.
        context: ``training`` or ``validation``.
        digest: Changes when anything that the network sees changes.
        source: Where they are from, for a reader.
        images: How many.
    """

    name: str
    context: str
    digest: str
    source: str
    images: int


class Recorder(Callback):
    """Records a training in its folder: configuration, metrics, overlays, figures, and a journal that lists them all.

    Args:
        config: The whole configuration.
        folder: The run's output folder.
        inputs: What is trained and validated on.
        parameters: How many the network has.
        overrides: What Hydra was told to change.
    """

    def __init__(
        self, config: Config, folder: Path, inputs: Sequence[Input], parameters: int, overrides: Sequence[str] = ()
    ) -> None:
        self.config = config
        self.folder = folder
        self.inputs = inputs
        self.parameters = parameters
        self.overrides = overrides
        self._journal: Journal | None = None
        self._system: SystemMetrics | None = None
        self._best: EvaluationRecord | None = None
        self._checkpoints: dict[CheckpointKind, Path] = {}

    def on_start(self, plan: Plan) -> None:
        git = provenance.git_state(provenance.repository_folder())
        words = provenance.command_words()
        self._summary = note.Summary(self.config, self.parameters, self.inputs, words, git)
        self._began = time.monotonic()
        self._journal = Journal(self.folder)
        self._journal.append(
            "run",
            journal=uuid.uuid4().hex,
            experiment=self.config.tracking.experiment,
            name=self.config.tracking.run_name or default_run_name(self.config),
            tags=provenance.tags(self.config, words, self.overrides, git),
            params={key: redact(str(value)) for key, value in configuration.flatten(self.config).items()},
        )
        self._journal.append(
            "inputs",
            datasets=[
                {
                    "name": item.name,
                    "context": item.context,
                    "digest": item.digest,
                    "source": item.source,
                    "profile": json.dumps({"images": item.images}),
                }
                for item in self.inputs
            ],
        )
        self._write_artifact(configuration.RECORD_FILE, redact(configuration.to_yaml(self.config)))
        if git is not None and git.diff:
            self._write_artifact(provenance.DIFF_FILE, git.diff)
        self._write_note("running")
        if self.config.tracking.system_metrics_every is not None:
            self._system = SystemMetrics(self.config.tracking.system_metrics_every, self._record_metrics, self.folder)
            self._system.start()

    def on_step(self, record: StepRecord) -> None:
        names = ("loss", "learning_rate", "images_per_second", "data_wait_fraction")
        self._record_metrics(record.step, {f"train/{name}": getattr(record, name) for name in names})

    def on_evaluation(self, record: EvaluationRecord) -> None:
        if record.improved:
            self._best = record
        metrics = {allowed_name(name): value for name, value in record.evaluation.metrics.items()}
        self._record_metrics(record.step, metrics)
        for number, (sample, prediction) in enumerate(record.evaluation.samples):
            path = self.folder / "overlays" / f"{record.step:06d}-{number}.png"
            picture = comparison(
                sample.image,
                sample.label,
                prediction,
                num_classes=self.config.dataset.num_classes,
                ignore_index=self.config.dataset.ignore_index,
                class_colours=self.config.dataset.palette or None,
            )
            write_png(path, picture)
            key = f"overlay/{allowed_name(sample.name)}"
            self._journal.append("image", path=self._relative(path), key=key, step=record.step)
        self._journal.flush()

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        self._checkpoints[kind] = path  # written over until the end, so these are sent once, then

    def on_end(self, status: Status) -> None:
        if self._journal is None:
            return
        try:
            if self._system is not None:
                self._system.stop()
            if status != "finished":  # whoever ends a training is in a hurry: first what must not be lost
                self._journal.append("end", status=status)
            self._record_results(status)
            if status == "finished":
                self._journal.append("end", status=status)
            self._journal.flush()
        finally:
            self._journal.close()

    def _record_results(self, status: Status) -> None:
        self._draw()
        self._write_note(status)
        for kind in ("best", "last"):
            if kind in self._checkpoints:
                self._journal.append("artifact", path=self._relative(self._checkpoints[kind]), to="checkpoints")
        if "best" in self._checkpoints:
            register = self._registration() if status == "finished" else None
            self._journal.append("model", checkpoint=self._relative(self._checkpoints["best"]), register=register)

    def _draw(self) -> None:
        folder = self.folder / "figures"
        try:
            figures.learning_curves(journal.history(self.folder / journal.FILE), folder / "learning_curves.png")
            if self._best is not None:
                evaluation = self._best.evaluation
                counts, names = evaluation.confusion.counts, evaluation.class_names
                figures.confusion_matrix(counts, names, folder / "confusion_matrix.png")
                figures.write_confusion_csv(counts, names, folder / "confusion_matrix.csv")
        except OSError as error:  # the numbers are in the journal: no reason to call the training failed
            log.warning("%s: cannot draw the figures (%s)", folder, error.strerror)
        if folder.is_dir():
            self._journal.append("artifact", path="figures", to="figures")

    def _registration(self) -> dict[str, Any] | None:
        """How the best model enters the registry, if it is to."""
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

    def _record_metrics(self, step: int, values: dict[str, float]) -> None:
        self._journal.append("metrics", step=step, values=values)

    def _write_note(self, status: Literal["running"] | Status) -> None:
        text = note.render(self._summary, status, time.monotonic() - self._began, self._best)
        self._journal.append("tags", values={"mlflow.note.content": text})

    def _write_artifact(self, name: str, text: str) -> None:
        try:
            (self.folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise journal.cannot_write(self.folder / name, error) from error
        self._journal.append("artifact", path=name, to=None)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def default_run_name(config: Config) -> str:
    """Such as ``fcn8s-cells-seed0``."""
    return f"{config.arch.name}-{config.dataset.name}-seed{config.seed}"
