"""What the journal of an interrupted training holds, so that the resumed training records nothing twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fcnlab.recording import journal, worker_history
from fcnlab.recording.tags import WORKERS_TAG
from fcnlab.recording.training_time import TrainingTime


@dataclass
class AlreadyRecorded:
    """What the journal of an interrupted training holds.

    Attributes:
        begun: Whether the journal describes a run; one without such an entry is empty.
        seconds: How long the training ran.
        resumed_at: The steps from which the training was resumed before.
        losses: The losses recorded after the step to resume from, and those of a test, by metric and step.
        has_inputs: Whether it names the images. A power cut may have left only the first lines of the beginning.
        files: The paths of the artifacts, relative to the output folder.
        overlays: The paths of the overlays, relative to the output folder.
        system_readings: The number of readings of the system metrics.
        workers: How many workers have trained: see `fcnlab.recording.worker_history`.
    """

    begun: bool = False
    seconds: float = 0.0
    resumed_at: list[int] = field(default_factory=list)
    losses: dict[tuple[str, int], float] = field(default_factory=dict)
    has_inputs: bool = False
    files: set[str] = field(default_factory=set)
    overlays: set[str] = field(default_factory=set)
    system_readings: int = 0
    workers: str = worker_history.ALONE

    @classmethod
    def read(cls, path: Path, first_step: int) -> AlreadyRecorded:
        """Read the journal of a training that is resumed from ``first_step``."""
        found, time = cls(), TrainingTime()
        for entry in journal.read(path):
            time.add(entry)
            if entry.kind == "run":
                found.begun = True
                found.workers = entry.fields.get("tags", {}).get(WORKERS_TAG, found.workers)
            elif entry.kind == "tags":
                found.workers = entry.fields["values"].get(WORKERS_TAG, found.workers)
            elif entry.kind == "resume":
                found.begun = True
                found.resumed_at.append(entry.fields["step"])
            elif entry.kind == "inputs":
                found.has_inputs = True
            elif entry.kind == "artifact":
                found.files.add(entry.fields["path"])
            elif entry.kind == "image":
                found.overlays.add(entry.fields["path"])  # the keys of older journals are written differently
            elif entry.kind == "metrics":
                found._add_metrics(entry.fields["step"], entry.fields["values"], first_step)
        found.seconds = time.seconds
        return found

    def _add_metrics(self, step: int, values: dict[str, float], first_step: int) -> None:
        if "train/loss" in values and step > first_step:
            self.losses["train/loss", step] = values["train/loss"]
        if "val/loss" in values and step >= first_step:  # a step is evaluated after its state is saved
            self.losses["val/loss", step] = values["val/loss"]
        if "test/loss" in values:  # the step is that of the best weights, which may be any before
            self.losses["test/loss", step] = values["test/loss"]
        if any(name.startswith("system/") for name in values):
            self.system_readings = max(self.system_readings, step + 1)
