"""Keeps the process that sends a training's journal to MLflow informed of the training."""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from fcnlab.config import Config
from fcnlab.core.errors import TrackingError
from fcnlab.recording import journal
from fcnlab.tracking import sending_client
from fcnlab.tracking.sending_client import wait_for
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationRecord, Plan, Status, StepRecord

log = logging.getLogger(__name__)

_SECONDS_WHEN_KILLED = 5.0
_SECONDS_AT_THE_END = 0.05  # between two looks at the journal


class MLflowCallback(Callback):
    """Has a training's journal sent to MLflow while it grows, by a process of its own.

    The store may go away and come back: the training does not notice. Must follow the `Recorder` among the callbacks.

    Args:
        config: ``config.tracking`` says where to, and how long to wait at the end for a store that is away.
        folder: The run's output folder.
        interval: Seconds between two requests for metrics.
        what: The journal is of: a training, or a sweep.

    Raises:
        TrackingError: If the store cannot be reached now, or has the experiment as deleted.
    """

    def __init__(
        self, config: Config, folder: Path, interval: float = 5.0, what: Literal["run", "sweep"] = "run"
    ) -> None:
        self.what = what
        self.config = config.tracking
        self.folder = folder
        self.interval = interval
        self.run_id: str | None = None
        self._begun: Future | None = None
        wait_for(self._open())

    def on_start(self, plan: Plan | None) -> None:
        self._begun = self._channel.call("start")
        if self.what == "sweep":
            self._wait_for_run()

    def on_step(self, record: StepRecord) -> None:
        if self.run_id is None:  # the run was made during the first step
            self._wait_for_run()

    def on_evaluation(self, record: EvaluationRecord) -> None:
        self._go_on_if_lost()
        self._channel.call("wake")  # its pictures go while the weights are being written

    def before_state(self) -> dict[str, Any]:
        if self.run_id is None:
            self._wait_for_run()
        return {"run_id": self.run_id}

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        if kind == "last":  # the end is near, and is not to wait for what could have been sent before
            self._channel.call("wake", interval=_SECONDS_AT_THE_END)

    def on_end(self, status: Status) -> None:
        if self._begun is None:
            return
        killed = status == "killed"
        patience = _SECONDS_WHEN_KILLED if killed else self.config.wait
        try:
            self._go_on_if_lost()
            mlflow_status = journal.MLFLOW_STATUS[status]
            left = wait_for(self._channel.call("end", status=mlflow_status, patience=patience, in_a_hurry=killed))
        except TrackingError as error:
            left = str(error)
        if left is not None:
            log.warning(
                "not everything is in the tracking store (%s): send the rest with `python -m fcnlab.track sync %s`",
                left,
                self.folder,
            )
        elif self.run_id is None:  # without a step
            self._wait_for_run()

    def _wait_for_run(self) -> None:
        try:
            begun = wait_for(self._begun)
        except sending_client.LostError:
            return  # the next evaluation begins anew
        self.run_id = begun["run_id"]
        log.info("MLflow %s %s, to look at with: %s", self.what, self.run_id, begun["shown"])

    def _open(self) -> Future:
        """The result is nothing, or why the store cannot be reached."""
        self._channel = sending_client.shared().open_channel()
        return self._channel.call(
            "open",
            folder=str(self.folder.absolute()),
            directory=str(Path.cwd()),
            environment=dict(os.environ),
            uri=self.config.uri,
            experiment=self.config.experiment,
            interval=self.interval,
        )

    def _go_on_if_lost(self) -> None:
        """Have another process send what the one did not that is gone; the training waits for neither."""
        if not self._channel.process.is_lost:
            return
        try:
            self._open()
            self._begun = self._channel.call("start")
        except TrackingError as error:  # no memory for one, which may be why the other is gone
            log.warning("%s", error)
