"""The callback that has a training's journal sent to MLflow."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any, Literal

from fcnlab.config import Config
from fcnlab.core import interrupts
from fcnlab.core.errors import TrackingError
from fcnlab.recording import journal
from fcnlab.tracking import sending_client
from fcnlab.tracking.sending_client import Answer, wait_for
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationEvent, Plan, Status, StepEvent

log = logging.getLogger(__name__)

_SECONDS_WHEN_KILLED = 5.0
_SECONDS_OF_SILENCE_WHEN_KILLED = 2.0
_SECONDS_TO_ANSWER = 1.0
"""How much longer than the sending process itself the training waits for the answer that says how it ended."""
_SECONDS_TO_OPEN = 180.0
"""How long the store may take to answer at the start, with MLflow's import and the tables of a new database."""
_PROCESSES = 3
"""How many sending processes are tried where one after the other is lost."""
_LONGEST_END = 660.0
"""The longest time that the end may take in seconds. The sending process itself stops after ten minutes."""
_INTERVAL_AT_THE_END = 0.05  # seconds


class MLflowCallback(Callback):
    """Has the sending process send a training's journal to MLflow while the journal grows.

    The training continues while the store is away. Among the callbacks, this one must follow the `Recorder`.

    Args:
        config: The configuration, whose ``tracking`` says where to send to and how long to wait at the end.
        folder: The run's output folder.
        interval: Seconds between two requests for metrics.
        what: Whether the journal belongs to a run or to a sweep.

    Attributes:
        run_id: The id of the run; None as long as it is not known.

    Raises:
        TrackingError: If the store cannot be reached, or its experiment was deleted.
    """

    def __init__(
        self, config: Config, folder: Path, interval: float = 5.0, what: Literal["run", "sweep"] = "run"
    ) -> None:
        self.what = what
        self.config = config.tracking
        self.folder = folder
        self.interval = interval
        self.run_id: str | None = None
        self._shown = ""
        self._started: Answer | None = None
        self._has_started = False
        self._open_surely()

    def on_start(self, plan: Plan | None) -> None:
        self._started = self._channel.call("start")
        if self.what == "sweep":
            self._wait_for_run()

    def on_step(self, record: StepEvent) -> None:
        # The store made the run while the first step was compiled. If it was away then, it is asked without waiting.
        if self.run_id is None and (not self._has_started or self._started.done()):
            self._wait_for_run()

    def on_evaluation(self, record: EvaluationEvent) -> None:
        self._replace_lost_process()
        self._channel.call("wake")  # the overlays are sent while the checkpoints are being written

    def before_state(self) -> dict[str, Any]:
        if self.run_id is None:
            self._wait_for_run()
        return {"run_id": self.run_id}

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        if kind == "last":  # the training is about to end: what is recorded from here on is sent at once
            self._channel.call("wake", interval=_INTERVAL_AT_THE_END)

    def on_end(self, status: Status) -> None:
        if self._started is None:
            return
        killed = status == "killed"
        patience = _SECONDS_WHEN_KILLED if killed else self.config.wait
        if killed and (left := interrupts.seconds_left()) is not None:
            patience = min(patience, max(left - _SECONDS_TO_ANSWER, 0.5))
        problem = self._end(journal.MLFLOW_STATUS[status], patience, killed)
        if problem is not None:
            log.warning(
                "not everything is in the tracking store (%s): send the rest with `python -m fcnlab.track sync %s`",
                problem,
                self.folder,
            )
        elif self.run_id is None:  # the training ended before its first step, or the store was away until now
            self._wait_for_run(sent=journal.sent_to(self.folder))

    def _end(self, status: str, patience: float, killed: bool) -> str | None:
        """Have the rest sent, and return why not everything is; a process that is lost meanwhile is replaced."""
        limit = patience if killed else max(patience, _LONGEST_END)
        silence = _SECONDS_OF_SILENCE_WHEN_KILLED if killed else math.inf
        deadline = time.monotonic() + limit
        problem = "no time left"
        for _ in range(_PROCESSES):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._replace_lost_process()
            arguments = {"status": status, "patience": min(patience, left), "in_a_hurry": killed}
            try:
                return wait_for(self._channel.call("end", **arguments), left + _SECONDS_TO_ANSWER, silence)
            except sending_client.LostError as error:
                problem = str(error)
            except TrackingError as error:
                return str(error)
        return problem

    def _wait_for_run(self, sent: str | None = None) -> None:
        """Ask for the id of the run; it stays None if the store has not answered yet.

        Args:
            sent: The id of the run if everything has been sent, so that nobody can be asked any more.
        """
        try:
            started = wait_for(self._started, _SECONDS_TO_OPEN)
        except sending_client.LostError:
            return  # the next evaluation starts another process
        self._has_started = True
        self.run_id = started["run_id"] or sent
        if self.run_id is None:
            self._started = self._channel.call("where")
        else:
            self._shown = started["shown"]
            self.say_where()

    def say_where(self) -> None:
        """Log where to look at the run; nothing happens as long as it is not known."""
        if self.run_id is not None:
            log.info("MLflow %s %s, to look at with: %s", self.what, self.run_id, self._shown)

    def _open_surely(self) -> None:
        """Open a channel, with another process where one is lost, as when the system needs its memory."""
        deadline = time.monotonic() + _SECONDS_TO_OPEN
        for attempt in range(1, _PROCESSES + 1):
            try:
                wait_for(self._open(), deadline - time.monotonic())
                return
            except sending_client.LostError as error:
                if attempt == _PROCESSES or time.monotonic() > deadline:
                    raise TrackingError(
                        f"{error} while it opened the tracking store, at attempt {attempt}; set tracking.uri=... or "
                        "train without it: tracking=none"
                    ) from error

    def _open(self) -> Answer:
        """Open a channel for the journal; the result fails if the store cannot be reached."""
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

    def _replace_lost_process(self) -> None:
        """Have another process continue if the sending process is lost; the training waits for neither."""
        if not self._channel.client.is_lost:
            return
        try:
            self._open()
            self._started = self._channel.call("start")
            self._has_started = False
        except TrackingError as error:  # there may be no memory for a process, which may be why the other was lost
            log.warning("%s", error)
