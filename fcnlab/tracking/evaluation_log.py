"""Logs an evaluation to the MLflow run of its checkpoint."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.config import EvaluateConfig
from fcnlab.core.errors import ConfigError, TrackingError
from fcnlab.inference.evaluation_report import FILES
from fcnlab.metrics import names as metric_names
from fcnlab.recording import journal

if TYPE_CHECKING:
    from fcnlab.inference.measurement import Measurement

log = logging.getLogger(__name__)

SAME = "same"
"""The value of ``log_to`` that means the run of the checkpoint."""


class RunLog:
    """The MLflow run to which an evaluation is logged.

    Args:
        config: The configuration of the evaluation, whose ``log_to`` names the run.

    Raises:
        FcnlabError: If the run cannot be found.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        from fcnlab.tracking.address import store_uri
        from fcnlab.tracking.store import Store  # not at the top: it imports MLflow, which a report does not need

        self._store = Store(store_uri(config.tracking.uri))
        self._name = f"{config.dataset.name}-{config.split}"
        self.run_id = self._find(config.checkpoint) if config.log_to == SAME else config.log_to
        if self._store.is_deleted(self.run_id):
            raise ConfigError(f"log_to={config.log_to}: run {self.run_id} is not in {self._store.uri} (tracking.uri)")

    def log(self, measurement: Measurement, folder: Path, step: int) -> None:
        """Log the metrics as ``evaluate/<metric>``, and the files of the report as artifacts.

        Args:
            measurement: The metrics.
            folder: The folder of the report.
            step: The step of the checkpoint.

        Raises:
            TrackingError: If the store cannot be reached.
        """
        now = int(time.time() * 1000)
        metrics = {metric_names.recorded(f"evaluate/{name}"): value for name, value in measurement.metrics.items()}
        self._store.log_metrics(self.run_id, [(name, value, now, step) for name, value in metrics.items()])
        for name in filter(lambda name: (folder / name).exists(), FILES):  # the folder may hold other files as well
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
        """Return the id of the run to which the journal of an output folder was sent; None if there is none."""
        try:
            first = next(journal.read(folder / journal.FILE), None)
        except TrackingError:
            return None
        return self._store.find_run(first.fields["journal"], first.fields["experiment"]) if first else None


def _output_folder(checkpoint: str) -> Path:
    path = Path(checkpoint).expanduser()
    return path if path.is_dir() else path.parent.parent
