"""What an evaluation leaves behind: a folder of tables and pictures, and on request metrics of an MLflow run."""

from __future__ import annotations

import csv
import json
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnlab.config import EvaluateConfig
from fcnlab.errors import ConfigError, DataError, TrackingError
from fcnlab.metrics import names as metric_names
from fcnlab.tracking import figures, journal
from fcnlab.tracking.images import comparison, write_png

if TYPE_CHECKING:
    from fcnlab.inference.measurement import Measurement

log = logging.getLogger(__name__)

SAME = "same"
"""What ``log_to`` is for the run that the checkpoint is of."""

_MOST_BYTES = 200
"""Of a sample's name, in the name of a file, which may have 255."""

FILES = ("metrics.json", "classes.csv", "images.csv", "confusion_matrix.png", "confusion_matrix.csv", "worst")
"""What `write_report` writes."""


def write_report(measurement: Measurement, description: Mapping[str, Any], folder: Path, palette: np.ndarray) -> None:
    """Write everything that was measured.

    Args:
        measurement: What was measured.
        description: Of what and how, for ``metrics.json``.
        folder: Made when missing; what an earlier evaluation left there is replaced.
        palette: The classes' colours, C x 3 uint8 RGB.

    Raises:
        FcnlabError: If the disk does not take it.
    """
    confusion, names = measurement.confusion, measurement.class_names
    report = {**description, "metrics": measurement.metrics}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        columns = (confusion.iou, confusion.dice, measurement.boundary.scores, confusion.counts.sum(axis=1))
        rows = ([name, *(row.tolist() for row in values)] for name, *values in zip(names, *columns, strict=True))
        _write_csv(folder / "classes.csv", ["class", "iou", "dice", "boundary_f1", "pixels"], rows)
        _write_csv(folder / "images.csv", ["image", "mean_iou", "pixel_accuracy"], measurement.images)
        figures.confusion_matrix(confusion.counts, names, folder / "confusion_matrix.png")
        figures.write_confusion_csv(confusion.counts, names, folder / "confusion_matrix.csv")
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot write ({error.strerror}); choose another output"
        ) from error
    for stale in (folder / "worst").glob("*.png"):  # of an earlier evaluation into the same folder
        stale.unlink()
    for rank, (result, sample, prediction) in enumerate(measurement.worst, start=1):
        picture = comparison(
            sample.image,
            sample.label,
            prediction,
            num_classes=len(names),
            ignore_index=confusion.ignore_index,
            class_colours=palette,
        )
        # The rank tells them apart, and images.csv has the whole names.
        name = re.sub(r"[^\w\-.]", "_", result.name).encode()[-_MOST_BYTES:].decode(errors="ignore")
        write_png(folder / "worst" / f"{rank:02d}-{name}-iou-{result.mean_iou:.4f}.png", picture)


def _write_csv(path: Path, header: list[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


class RunLog:
    """Adds an evaluation to the MLflow run that it belongs to.

    Raises:
        FcnlabError: If the run cannot be found.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        from fcnlab.tracking.address import store_uri
        from fcnlab.tracking.store import Store  # not at the top: a report alone needs no MLflow

        self._store = Store(store_uri(config.tracking.uri))
        self._name = f"{config.dataset.name}-{config.split}"
        self.run_id = self._find(config.checkpoint) if config.log_to == SAME else config.log_to
        if self._store.is_deleted(self.run_id):
            raise ConfigError(f"log_to={config.log_to}: run {self.run_id} is not in {self._store.uri} (tracking.uri)")

    def log(self, measurement: Measurement, folder: Path, step: int) -> None:
        """Log the metrics, as ``evaluate/<metric>``, and the report's files.

        Raises:
            TrackingError: If the store cannot be reached.
        """
        now = int(time.time() * 1000)
        metrics = {metric_names.recorded(f"evaluate/{name}"): value for name, value in measurement.metrics.items()}
        self._store.log_metrics(self.run_id, [(name, value, now, step) for name, value in metrics.items()])
        for name in filter(lambda name: (folder / name).exists(), FILES):  # the folder may hold anything else
            into = f"evaluate/{self._name}" + (f"/{name}" if (folder / name).is_dir() else "")
            self._store.log_artifact(self.run_id, folder / name, into)
        log.info("logged to MLflow run %s", self.run_id)

    def _find(self, checkpoint: str) -> str:
        if checkpoint.startswith("runs:/"):
            return checkpoint.removeprefix("runs:/").partition("/")[0]
        run_id = (
            self._store.run_of_model(checkpoint)
            if checkpoint.startswith("models:/")
            else self._run_of_folder(_output_folder(checkpoint))
        )
        if run_id is None:
            raise ConfigError(f"log_to={SAME}: the run of checkpoint={checkpoint} is not known; give its id instead")
        return run_id

    def _run_of_folder(self, folder: Path) -> str | None:
        """The run that the training in an output folder was recorded as."""
        try:
            first = next(journal.read(folder / journal.FILE), None)
        except TrackingError:
            return None
        return self._store.find_run(first.fields["journal"], first.fields["experiment"]) if first else None


def _output_folder(checkpoint: str) -> Path:
    path = Path(checkpoint).expanduser()
    return path if path.is_dir() else path.parent.parent
