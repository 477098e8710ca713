"""What a run holds, written to its folder and its journal as it happens. Knows no MLflow."""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.core.credentials import redact
from fcnlab.core.errors import TrackingError
from fcnlab.core.imports import import_ahead
from fcnlab.drawing.figures import FIGURE_MODULES
from fcnlab.drawing.side_by_side import comparison, write_png
from fcnlab.metrics.names import higher_is_better, recorded
from fcnlab.recording import journal, note, provenance, run_figures
from fcnlab.recording.image_names import image_key
from fcnlab.recording.inputs import Input
from fcnlab.recording.journal import Journal
from fcnlab.recording.system_metrics import SystemMetrics
from fcnlab.recording.tags import FOLDER_TAG, PARAMETERS_TAG, SWEEP_TAG, TRIAL_TAG
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationRecord, Plan, Status, StepRecord

log = logging.getLogger(__name__)


@dataclass
class Past:
    """What a journal holds of the training that goes on.

    Attributes:
        begun: Whether it has a beginning at all.
        seconds: For which it trained.
        resumed_at: The steps from which it went on already.
        witnesses: From a metric and a step to its value, after the step that it goes on from.
        images: The files of its pictures, each of one step and one sample.
        readings: Of the machine's load, how many.
    """

    begun: bool = False
    seconds: float = 0.0
    resumed_at: list[int] = field(default_factory=list)
    witnesses: dict[tuple[str, int], float] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)
    readings: int = 0

    @classmethod
    def read(cls, path: Path, first_step: int) -> Past:
        """Read a journal, of a training that goes on from ``first_step``."""
        past, began, last = cls(), None, 0
        for entry in journal.read(path):
            fields, moment = entry.fields, entry.fields["time"]
            if entry.kind in ("run", "resume"):
                past.seconds += (last - began) / 1000 if began is not None else 0
                began, past.begun = moment, True
            if entry.kind == "resume":
                past.resumed_at.append(fields["step"])
            elif entry.kind == "image":
                past.images.add(fields["path"])  # not by its key, which older journals write in another way
            elif entry.kind == "metrics":
                past._add_metrics(fields["step"], fields["values"], first_step)
            last = moment
        past.seconds += (last - began) / 1000 if began is not None else 0
        return past

    def _add_metrics(self, step: int, values: dict[str, float], first_step: int) -> None:
        for name in ("train/loss", "val/loss"):
            # An evaluation follows the state of its step.
            if name in values and (step > first_step or (name == "val/loss" and step == first_step)):
                self.witnesses[name, step] = values[name]
        if any(name.startswith("system/") for name in values):
            self.readings = max(self.readings, step + 1)


class Recorder(Callback):
    """Records a training in its folder: configuration, metrics, overlays, figures, and a journal that lists them all.

    Args:
        config: The whole configuration.
        folder: The run's output folder.
        inputs: What is trained and validated on.
        parameters: How many the network has.
        overrides: What Hydra was told to change.
        go_on: Whether the folder holds a training that this one goes on with. Steps that it had recorded after its last
            state are made again: a value that is there already is not recorded twice.
        trial: Its number, if it is a trial of ``config.sweep.id``.
        draw: Begins what `run_figures.draw` does somewhere else; None: in a thread.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        inputs: Sequence[Input],
        parameters: int,
        overrides: Sequence[str] = (),
        go_on: bool = False,
        trial: int | None = None,
        draw: Callable[[Path, np.ndarray | None, Sequence[str]], Future] | None = None,
    ) -> None:
        self.config = config
        self._draw_elsewhere = draw
        self.trial = trial
        self.folder = folder
        self.inputs = inputs
        self.parameters = parameters
        self.overrides = overrides
        self.go_on = go_on
        self._past = Past()
        self._differs = False
        self._journal: Journal | None = None
        self._system: SystemMetrics | None = None
        self._best: EvaluationRecord | None = None
        self._drawing: Future[None] | None = None
        self._checkpoints: dict[CheckpointKind, Path] = {}
        self._has_recorded_checkpoints = False

    def on_start(self, plan: Plan) -> None:
        git = provenance.git_state(provenance.repository_folder())
        words = provenance.command_words()
        self._summary = note.Summary(self.config, self.parameters, self.inputs, words, git)
        self._began = time.monotonic()
        self._journal = Journal(self.folder, self.go_on)
        self._past = Past.read(self.folder / journal.FILE, plan.first_step)
        self._best = plan.best
        self._first_step, self._last_step = plan.first_step + 1, plan.total_steps
        if self._past.begun:
            self._journal.append("resume", step=plan.first_step)
            steps = ", ".join(map(str, [*self._past.resumed_at, plan.first_step]))
            self._journal.append("tags", values={"resumed_at_steps": steps[-provenance.MAX_TAG_LENGTH :]})
        else:
            self._record_beginning(words, git)
        self._config_text = redact(configuration.to_yaml(self.config))
        if not self._past.begun or _read(self.folder / configuration.RECORD_FILE) != self._config_text:
            self._write_artifact(configuration.RECORD_FILE, self._config_text)
        if git is not None and git.diff and not self._past.begun:
            self._write_artifact(provenance.DIFF_FILE, git.diff)
        self._write_note("running")
        if self.config.tracking.system_metrics_every is not None:
            every = self.config.tracking.system_metrics_every
            self._system = SystemMetrics(every, self._record_metrics, self.folder, self._past.readings)
            self._system.start()

    def _record_beginning(self, words: Sequence[str], git: provenance.GitState | None) -> None:
        tags = provenance.tags(self.config, words, self.overrides, git)
        self._journal.append(
            "run",
            journal=uuid.uuid4().hex,
            experiment=self.config.tracking.experiment,
            name=self.config.tracking.run_name or default_run_name(self.config),
            tags={**tags, **self._place_in_sweep(), FOLDER_TAG: str(self.folder.resolve())},
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

    def _place_in_sweep(self) -> dict[str, str]:
        sweep = {SWEEP_TAG: self.config.sweep.id, TRIAL_TAG: self.trial}
        return {
            PARAMETERS_TAG: str(self.parameters),
            **{name: str(value) for name, value in sweep.items() if value is not None},
        }

    def on_step(self, record: StepRecord) -> None:
        if record.step == self._first_step and self._draw_elsewhere is None:  # not before: it compiles
            import_ahead(*FIGURE_MODULES)
        measured = ("loss", "learning_rate", "images_per_second", "data_wait_fraction")
        self._record_once(record.step, {f"train/{name}": getattr(record, name) for name in measured}, "train/loss")

    def on_evaluation(self, record: EvaluationRecord) -> None:
        if record.improved:
            self._best = record
        metrics = {recorded(name): value for name, value in record.evaluation.metrics.items()}
        self._record_once(record.step, metrics, "val/loss")
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
            if self._relative(path) not in self._past.images:
                key = image_key(f"overlay/{sample.name}")
                self._journal.append("image", path=self._relative(path), key=key, step=record.step)
        self._journal.flush()
        if record.step == self._last_step:
            self._drawing = self._begin_to_draw()  # nothing of it changes any more

    def before_state(self) -> dict[str, Any]:
        self._journal.flush()
        return {
            "config": self._config_text,
            "inputs": {item.context: item.digest for item in self.inputs},
        }

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        self._checkpoints[kind] = path
        if kind == "last":  # nothing is written over from here on: what is sent now, nobody has to wait for
            self._record_checkpoints()

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
        """Pictures and a model take seconds, and change if a training that was told to end goes on."""
        self._write_note(status)
        self._record_checkpoints(with_model=status != "killed")
        register = self._registration() if status == "finished" and "best" in self._checkpoints else None
        if register is not None:
            self._journal.append("model", checkpoint=self._relative(self._checkpoints["best"]), register=register)
        if status != "killed":  # at last: what is above can be sent meanwhile
            self._finish_drawing()
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
            self._journal.append("model", checkpoint=self._relative(self._checkpoints["best"]), register=None)

    def _begin_to_draw(self) -> Future:
        if self._draw_elsewhere is not None:
            with suppress(TrackingError):
                return self._draw_elsewhere(*self._what_is_drawn())
        pool = ThreadPoolExecutor(1, "fcnlab-figures")
        drawing = pool.submit(run_figures.draw, *self._what_is_drawn())
        pool.shutdown(wait=False)
        return drawing

    def _finish_drawing(self) -> None:
        drawing = self._drawing or self._begin_to_draw()
        while not drawing.done():
            wait([drawing], 0.1)  # not longer, so that Ctrl-C is heard
        if drawing.exception() is not None:  # that process is gone, or it is a bug, which then shows here
            run_figures.draw(*self._what_is_drawn())

    def _what_is_drawn(self) -> tuple[Path, np.ndarray | None, Sequence[str]]:
        if self._best is None:
            return self.folder, None, []
        evaluation = self._best.evaluation
        return self.folder, evaluation.confusion.counts, evaluation.class_names

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

    def _record_once(self, step: int, values: dict[str, float], witness: str) -> None:
        """Record metrics, unless the process that this one goes on from did so; one of them tells if it was the same.

        That one may have been killed within an evaluation: the witness is in the same line as the others.
        """
        recorded = self._past.witnesses.get((witness, step))
        if recorded is None:
            self._record_metrics(step, values)
        elif recorded != values[witness] and not (math.isnan(recorded) and math.isnan(values[witness])):
            if not self._differs:
                log.warning(
                    "%s of step %d is %r, and was %r before the interruption: this machine, version or configuration "
                    "computes something else; recorded anew from here",
                    *(witness, step, values[witness], recorded),
                )
            self._differs = True
            self._record_metrics(step, values)

    def _record_metrics(self, step: int, values: dict[str, float]) -> None:
        self._journal.append("metrics", step=step, values=values)

    def _write_note(self, status: Literal["running"] | Status) -> None:
        text = note.render(self._summary, status, self._past.seconds + time.monotonic() - self._began, self._best)
        self._journal.append("tags", values={"mlflow.note.content": text})

    def _write_artifact(self, name: str, text: str) -> None:
        try:
            (self.folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise journal.cannot_write(self.folder / name, error) from error
        self._journal.append("artifact", path=name, to=None)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def default_run_name(config: Config) -> str:
    """Such as ``fcn8s-cells-seed0``."""
    return f"{config.arch.name}-{config.dataset.name}-seed{config.seed}"
