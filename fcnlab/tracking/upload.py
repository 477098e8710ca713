"""From a run's journal to a tracking store: in the background while it trains, or afterwards."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fcnlab.config import Config
from fcnlab.credentials import redact
from fcnlab.errors import CheckpointError, TrackingError
from fcnlab.models.weights import read_digest
from fcnlab.tracking import journal
from fcnlab.tracking.journal import Entry
from fcnlab.tracking.lock import FolderLock
from fcnlab.tracking.packaging import package, warm_up
from fcnlab.tracking.store import RefusedError, Store, store_uri, ui_command
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationRecord, Plan, Status, StepRecord

log = logging.getLogger(__name__)

MLFLOW_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}

_BATCH = 900  # points a request: MLflow takes 1000
_SECONDS_WHEN_KILLED = 5.0
_SECONDS_AT_THE_END = 0.05  # between two looks at the journal
_LONGEST_PAUSE = 30.0


class RunDeletedError(RefusedError):
    """Somebody deleted the run from the store."""


class Uploader:
    """Sends a journal from where the last upload stopped, each entry once and in order.

    How far it got is kept beside the journal, so that another process can go on. An entry whose outcome is unknown is
    sent again, in the way that the store recognises it by.

    Args:
        folder: The run's output folder.
        store: Where to.

    Raises:
        TrackingError: If another process sends this journal, or there is none.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.run_id: str | None = None
        self.ended = False
        self._path = folder / journal.FILE
        self._offset = 0
        self._unsure = True
        self._load_position()
        try:
            self._lock = FolderLock(folder / ".upload.lock")
        except OSError as error:
            raise TrackingError(f"{folder}: another process is sending this journal already") from error

    @property
    def unsent(self) -> int:
        """Bytes of the journal that the store does not have yet."""
        return self._path.stat().st_size - self._offset

    def open(self) -> str:
        """Make the run, or find it.

        Returns:
            Its id.

        Raises:
            TrackingError: If the store cannot be reached or the journal has no beginning.
        """
        if self.run_id is None:
            first = next(journal.read(self._path), None)
            if first is None or first.kind != "run":
                raise TrackingError(f"{self._path}: does not begin with a run; nothing can be sent")
            fields = first.fields
            self.run_id = self.store.open_run(
                fields["journal"], fields["experiment"], fields["name"], fields["tags"], fields["time"]
            )
            self._save_position(0)
        return self.run_id

    def advance(self) -> None:
        """Send everything that the journal holds by now.

        Raises:
            RunDeletedError: If the run is gone.
            TrackingError: If the store cannot be reached; the next call goes on from there.
        """
        journal.sync(self._path)
        points: list[tuple[str, float, int, int]] = []
        reached = self._offset
        for entry in journal.read(self._path, self._offset):
            if entry.kind == "metrics":
                step, moment = entry.fields["step"], entry.fields["time"]
                points += [(name, value, moment, step) for name, value in entry.fields["values"].items()]
                reached = entry.end
                if len(points) < _BATCH:
                    continue
            if points:
                self._send_points(points, reached)
                points = []
            if entry.kind != "metrics":
                self._attempt(lambda entry=entry: self._send(entry), entry.end)
        if points:
            self._send_points(points, reached)

    def end(self, status: str) -> None:
        """End a run whose journal does not say how it ended.

        Raises:
            TrackingError: If the store cannot be reached.
        """
        if not self.ended:
            self.store.end_run(self.run_id, status, int(time.time() * 1000))

    def close(self) -> None:
        """Let another process send."""
        self._lock.release()

    def _send_points(self, points: list[tuple[str, float, int, int]], end: int) -> None:
        try:
            self._attempt(lambda: self.store.log_metrics(self.run_id, points, self._unsure), end, skip_refused=False)
        except RunDeletedError:
            raise
        except RefusedError:  # one bad point must not cost the others
            for point in points:
                self._attempt(lambda point=point: self.store.log_metrics(self.run_id, [point], True), self._offset)
            self._save_position(end)

    def _attempt(self, send: Callable[[], None], end: int, skip_refused: bool = True) -> None:
        """Send, and remember that the journal up to ``end`` is in the store."""
        try:
            send()
        except RefusedError as error:
            if self.store.is_deleted(self.run_id):
                raise RunDeletedError(f"run {self.run_id} was deleted from the store") from error
            if not skip_refused:
                raise
            log.warning("%s; left out there, kept in %s", error, self._path)
        except TrackingError:
            self._unsure = True
            raise
        self._unsure = False
        self._save_position(end)

    def _send(self, entry: Entry) -> None:
        fields, store, run_id = entry.fields, self.store, self.run_id
        if entry.kind == "run":
            store.log_params(run_id, fields["params"])
        elif entry.kind == "tags":
            store.set_tags(run_id, {key: text.replace("{run_id}", run_id) for key, text in fields["values"].items()})
        elif entry.kind == "inputs":
            store.log_inputs(run_id, fields["datasets"])
        elif entry.kind == "artifact" and self._is_there(fields["path"]):
            store.log_artifact(run_id, self.folder / fields["path"], fields["to"])
        elif entry.kind == "image" and self._is_there(fields["path"]):
            path = self.folder / fields["path"]
            store.log_image(run_id, path, fields["key"], fields["step"], fields["time"], self._unsure)
        elif entry.kind == "model" and self._is_there(fields["checkpoint"]):
            self._send_model(fields)
        elif entry.kind == "resume":
            self.ended = False
            store.resume_run(run_id)
        elif entry.kind == "end":
            self.ended = True
            store.end_run(run_id, MLFLOW_STATUS[fields["status"]], fields["time"])

    def _send_model(self, fields: dict[str, Any]) -> None:
        folder, checkpoint = self.folder / "model", self.folder / fields["checkpoint"]
        try:
            digest = read_digest(checkpoint) or ""
            if folder.is_dir() and not _is_packaged(folder, checkpoint.name, digest):
                shutil.rmtree(folder)  # of an earlier best
            if not folder.is_dir():
                package(checkpoint, folder)
        except CheckpointError as error:
            log.warning("no MLflow model was made: %s", error)
            return
        model_id = self.store.log_model(self.run_id, folder, digest)
        if fields["register"] is not None:
            name, alias = fields["register"]["name"], fields["register"]["alias"]
            outcome = self.store.register_model(self.run_id, model_id, **fields["register"])
            log.info("model registry, %s@%s: %s", name, alias, outcome)

    def _is_there(self, path: str) -> bool:
        if (self.folder / path).exists():
            return True
        log.warning("%s is gone and cannot be sent", self.folder / path)
        return False

    def _load_position(self) -> None:
        position = journal.read_position(self.folder)
        if position.get("store") == redact(self.store.uri):  # in another store, everything is still to be sent
            self.run_id, self._offset, self.ended = position["run_id"], position["offset"], position["ended"]

    def _save_position(self, offset: int) -> None:
        self._offset = offset
        position = {"store": redact(self.store.uri), "run_id": self.run_id, "offset": offset, "ended": self.ended}
        temporary = self.folder / f"{journal.POSITION}.partial"
        try:
            temporary.write_text(json.dumps(position), encoding="utf-8")
            temporary.replace(self.folder / journal.POSITION)
        except OSError as error:
            # On a full disk the training ends by the journal's own error; what was sent twice is recognised.
            log.debug("%s: %s", temporary, error)


class MLflowUpload(Callback):
    """Sends a training's journal to MLflow while it grows, from a thread of its own.

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
        self._uploader: Uploader | None = None
        self._thread: threading.Thread | None = None
        self._trains = False
        self._wake = threading.Event()
        self._finish = threading.Event()
        self._give_up = threading.Event()
        self._away: TrackingError | None = None
        with _way_out():
            self._store = Store(self.config.uri or _begun_in(folder) or store_uri(None))
            self._store.open_experiment(self.config.experiment)

    def on_start(self, plan: Plan | None) -> None:
        self._uploader = Uploader(self.folder, self._store)
        try:
            with _way_out():
                self.run_id = self._uploader.open()
        except TrackingError:
            self._uploader.close()
            raise
        self._thread = threading.Thread(target=self._work, name="fcnlab-upload", daemon=True)
        self._thread.start()
        log.info("MLflow %s %s, to look at with: %s", self.what, self.run_id, ui_command(self._store.uri))

    def on_step(self, record: StepRecord) -> None:
        if not self._trains:
            self._trains = True
            self._wake.set()

    def on_evaluation(self, record: EvaluationRecord) -> None:
        self._wake.set()  # its pictures go while the weights are being written

    def before_state(self) -> dict[str, Any]:
        return {"run_id": self.run_id}

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        if kind == "last":  # the end is near, and is not to wait for what could have been sent before
            self.interval = _SECONDS_AT_THE_END
            self._wake.set()

    def on_end(self, status: Status) -> None:
        if self._thread is None:
            return
        self._status = MLFLOW_STATUS[status]
        self._finish.set()
        self._wake.set()
        patience = _SECONDS_WHEN_KILLED if status == "killed" else self.config.wait
        deadline = time.monotonic() + patience
        while self._thread.is_alive() and (time.monotonic() < deadline or not (self._away or status == "killed")):
            self._thread.join(0.1)
        self._give_up.set()
        if self._away or self._thread.is_alive():
            log.warning(
                "not everything is in the tracking store (%s): send the rest with `python -m fcnlab.track sync %s`",
                self._away or "no time left",
                self.folder,
            )

    def _work(self) -> None:
        try:
            self._send_until_the_end()
        except Exception as error:  # a bug must cost neither the training nor the end's waiting
            log.exception("the upload ended")
            self._away = TrackingError(f"the upload ended: {error!r}")
        finally:
            self._uploader.close()

    def _send_until_the_end(self) -> None:
        pause, warm = self.interval, False
        while not self._give_up.is_set():
            self._wake.clear()  # before sending: what is written later is another round's
            finishing = self._finish.is_set()
            try:
                self._uploader.advance()
                if finishing:
                    self._uploader.end(self._status)
                self._mark_back()
                pause = self.interval
                if finishing:
                    return
            except RunDeletedError as error:
                log.warning("%s; the training goes on, recorded in %s", error, self.folder / journal.FILE)
                return
            except TrackingError as error:
                if not (self.folder / journal.FILE).exists():
                    self._end_without_journal()
                    return
                pause = min(pause * 2, _LONGEST_PAUSE) if self._away else 1.0
                self._mark_away(error)
            if self._trains and not warm:
                warm_up()
                warm = True
            if self._finish.is_set():
                self._give_up.wait(1.0 if self._away else 0.0)
            else:
                self._wake.wait(pause)

    def _end_without_journal(self) -> None:
        """Whoever deleted it ended the training by that, and there is nothing left to send but how it ended."""
        self._finish.wait()
        try:
            self._uploader.end(self._status)
        except TrackingError as error:
            log.warning("%s; run %s stays unended there", error, self.run_id)

    def _mark_away(self, error: TrackingError) -> None:
        if self._away is None:
            log.warning("%s; the training goes on and is recorded in %s", error, self.folder / journal.FILE)
        self._away = error

    def _mark_back(self) -> None:
        if self._away is not None:
            log.info("the tracking store is back and has everything again")
        self._away = None


@contextmanager
def _way_out() -> Iterator[None]:
    """Add to what goes wrong at the start what the user can do about it."""
    try:
        yield
    except RefusedError:
        raise
    except TrackingError as error:
        raise TrackingError(f"{error}; set tracking.uri=... or train without it: tracking=none") from error


def sync(folder: Path, uri: str | None = None) -> str:
    """Send what a store does not have yet of a run whose training is over.

    A training that ended without a word, killed or cut off, is recorded as KILLED.

    Args:
        folder: The run's output folder.
        uri: The store; by default the one it was begun in, then as `store_uri` finds it.

    Returns:
        The run's id there.

    Raises:
        TrackingError: If there is no journal, the training still runs, or the store cannot be reached.
    """
    if not (folder / journal.FILE).is_file():
        raise TrackingError(f"{folder}: holds no {journal.FILE}; give the output folder of a training")
    if journal.is_being_written(folder):
        raise TrackingError(f"{folder}: its training is still running, and sends by itself")
    uploader = Uploader(folder, Store(uri or _begun_in(folder) or store_uri(None)))
    try:
        run_id = uploader.open()
        uploader.advance()
        uploader.end("KILLED")
    finally:
        uploader.close()
    return run_id


def _begun_in(folder: Path) -> str | None:
    """The store that a journal's upload was begun in; None if there is none or only the environment knows it whole."""
    recorded = journal.read_position(folder).get("store")
    if recorded and "***" in recorded:
        if redact(store_uri(None)) != recorded:
            raise TrackingError(f"{folder}: was begun in {recorded}; set MLFLOW_TRACKING_URI to it, or give --uri")
        return None
    return recorded


def _is_packaged(folder: Path, name: str, digest: str) -> bool:
    try:
        return read_digest(folder / "artifacts" / name) == digest
    except CheckpointError:
        return False
