"""Sends a run's journal to a tracking store, each entry once and in order."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from fcnlab.core.checkpoint_header import read_digest
from fcnlab.core.credentials import redact
from fcnlab.core.errors import CheckpointError, RefusedError, TrackingError
from fcnlab.core.locks import FolderLock
from fcnlab.recording import journal
from fcnlab.recording.journal import Entry
from fcnlab.tracking.address import store_uri
from fcnlab.tracking.packaging import package
from fcnlab.tracking.store import Store

log = logging.getLogger(__name__)

_BATCH = 900  # metric values in a request; MLflow takes 1000
_LOCK = ".upload.lock"  # an earlier version's sender, which may still be there, takes the same
_SECONDS_FOR_ANOTHER = 10.0
"""How long to wait for another process, which sends the rest of the journal after its training was killed."""
_FIELDS = {
    "run": {"params"},
    "metrics": {"time", "step", "values"},
    "tags": {"values"},
    "inputs": {"datasets"},
    "artifact": {"path", "to"},
    "image": {"time", "path", "key", "step"},
    "model": {"checkpoint", "register"},
    "end": {"time", "status"},
}
"""The fields that each kind of entry must have to be sent."""


class RunDeletedError(RefusedError):
    """The run was deleted from the store."""


class JournalSender:
    """Sends what is new in a journal, each entry once and in order.

    A file beside the journal holds how much was sent, so that another process can continue. If the outcome of a request
    is unknown, it is repeated in a way by which the store recognises what it has already.

    Args:
        folder: The run's output folder.
        store: The store to send to.
        on_answer: Called whenever the store has done what it was asked, or has refused it.

    Attributes:
        run_id: The id of the run in the store; None before `open`.
        ended: Whether the last status that was sent is that of a run that ended.

    Raises:
        TrackingError: If another process sends this journal, or there is no such folder.
    """

    def __init__(self, folder: Path, store: Store, on_answer: Callable[[], object] = lambda: None) -> None:
        self.folder = folder
        self.store = store
        self._on_answer = on_answer
        self.run_id: str | None = None
        self.ended = False
        self._path = folder / journal.FILE
        self._offset = 0
        self._unsure = True
        self._is_known = False
        self._may_have_surplus = False
        try:
            self._lock = FolderLock.wait(folder / _LOCK, _SECONDS_FOR_ANOTHER)
        except BlockingIOError as error:
            raise TrackingError(f"{folder}: another process is sending this journal already") from error
        except OSError as error:
            raise TrackingError(f"{folder}: cannot send its journal ({error.strerror})") from error
        self._load_position()

    @property
    def unsent(self) -> int:
        """The number of bytes of the journal that the store does not have yet."""
        return self._path.stat().st_size - self._offset

    def open(self) -> str:
        """Create the run, or find it. A store that does not have the run that it was sent before gets everything again.

        Returns:
            The id of the run.

        Raises:
            TrackingError: If the store cannot be reached, or the journal does not begin with a run.
        """
        if self.run_id is not None and not self._is_known:
            if not self.store.has_run(self.run_id):
                log.warning(
                    "%s: does not know run %s, as if it had been made anew; everything is sent again, to a new run",
                    *(self.store.shown, self.run_id),
                )
                self.run_id, self._offset, self.ended = None, 0, False
            self._is_known = True
        if self.run_id is None:
            first = next(journal.read(self._path), None)
            if first is None or first.kind != "run":
                raise TrackingError(f"{self._path}: does not begin with a run; nothing can be sent")
            try:
                begun = [first.fields[name] for name in ("journal", "experiment", "name", "tags", "time")]
            except KeyError as error:
                raise TrackingError(f"{self._path}: its run has no {error}; nothing can be sent") from error
            try:
                self.run_id = self.store.open_run(*begun)
            except RefusedError:
                raise
            except TrackingError:
                self._may_have_surplus = True
                raise
            self._is_known = True
            self._on_answer()
            self._save_position(0)
        return self.run_id

    def advance(self) -> None:
        """Send everything that is new in the journal.

        Raises:
            RunDeletedError: If the run was deleted.
            TrackingError: If the store cannot be reached; the next call continues from there.
        """
        if self._path.exists() and not self.unsent:
            return
        journal.flush_to_disk(self._path)
        points: list[tuple[str, float, int, int]] = []
        reached = self._offset
        for entry in journal.read(self._path, self._offset):
            if is_metrics := entry.kind == "metrics" and _is_whole(entry):
                step, moment = entry.fields["step"], entry.fields["time"]
                points += [(name, value, moment, step) for name, value in entry.fields["values"].items()]
                reached = entry.end
                if len(points) < _BATCH:
                    continue
            if points:
                self._send_points(points, reached)
                points = []
            if not is_metrics:
                self._attempt(lambda entry=entry: self._send(entry), entry.end)
        if points:
            self._send_points(points, reached)

    def end(self, status: str) -> None:
        """Set the status of a run whose journal does not say how it ended.

        Raises:
            TrackingError: If the store cannot be reached.
        """
        if not self.ended:
            self._end_run(status, int(time.time() * 1000))

    def close(self) -> None:
        """Let another process send the journal."""
        self._lock.release()

    def _send_points(self, points: list[tuple[str, float, int, int]], end: int) -> None:
        try:
            self._attempt(lambda: self.store.log_metrics(self.run_id, points, self._unsure), end, skip_refused=False)
        except RunDeletedError:
            raise
        except RefusedError:  # one point that is refused must not cost the others
            for point in points:
                self._attempt(lambda point=point: self.store.log_metrics(self.run_id, [point], True), self._offset)
            self._save_position(end)

    def _attempt(self, send: Callable[[], None], end: int, skip_refused: bool = True) -> None:
        """Send, and note that the store has the journal up to the byte ``end``."""
        try:
            send()
        except RefusedError as error:
            if self.store.is_deleted(self.run_id):
                raise RunDeletedError(f"run {self.run_id} was deleted from the store") from error
            if not skip_refused:
                raise
            log.warning("%s; it is missing there, and kept in %s", error, self._path)
        except TrackingError:
            self._unsure = True
            raise
        self._unsure = False
        self._on_answer()
        self._save_position(end)

    def _send(self, entry: Entry) -> None:
        fields, store, run_id = entry.fields, self.store, self.run_id
        if not _is_whole(entry):
            log.warning("%s: the %s that ends at byte %d is damaged and was skipped", self._path, entry.kind, entry.end)
        elif entry.kind == "run":
            self._send_params(fields["params"])
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
            self._end_run(journal.MLFLOW_STATUS[fields["status"]], fields["time"])

    def _end_run(self, status: str, end_time: int) -> None:
        if self._may_have_surplus:
            self.store.end_surplus(self.run_id)
            self._may_have_surplus = False
        self.store.end_run(self.run_id, status, end_time)

    def _send_params(self, params: dict[str, str]) -> None:
        """Send parameters; one that is refused does not cost the others."""
        try:
            self.store.log_params(self.run_id, params)
        except RefusedError as error:
            if len(params) == 1 or self.store.is_deleted(self.run_id):
                raise
            log.debug("%s; the parameters are sent one by one", error)
            for key, value in params.items():
                try:
                    self.store.log_params(self.run_id, {key: value})
                except RefusedError as refusal:
                    log.warning("parameter %s: %s; it is missing there, and kept in %s", key, refusal, self._path)

    def _send_model(self, fields: dict[str, Any]) -> None:
        folder, checkpoint = self.folder / "model", self.folder / fields["checkpoint"]
        try:
            digest = read_digest(checkpoint) or ""
            if folder.is_dir() and not _is_packaged(folder, checkpoint.name, digest):
                shutil.rmtree(folder)  # it holds an earlier best checkpoint
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
        if position.get("store") == redact(self.store.uri):  # another store gets everything
            self.run_id, self._offset, self.ended = position["run_id"], position["offset"], position["ended"]

    def _save_position(self, offset: int) -> None:
        self._offset = offset
        position = {"store": redact(self.store.uri), "run_id": self.run_id, "offset": offset, "ended": self.ended}
        temporary = self.folder / f"{journal.POSITION}.partial"
        try:
            temporary.write_text(json.dumps(position), encoding="utf-8")
            temporary.replace(self.folder / journal.POSITION)
        except OSError as error:
            # On a full disk, the journal's own error ends the training. The store recognises what is sent again.
            log.debug("%s: %s", temporary, error)


def _is_whole(entry: Entry) -> bool:
    """Return whether an entry has what it takes to send it; a kind that is unknown has, as it is not sent."""
    fields = entry.fields
    if not _FIELDS.get(entry.kind, set()) <= fields.keys():
        return False
    values = fields.get("values", {})
    return isinstance(values, dict) and (entry.kind != "end" or fields["status"] in journal.MLFLOW_STATUS)


def sync(folder: Path, uri: str | None = None) -> str:
    """Send to a store what it does not have yet of a run whose training is over.

    A training whose journal does not say how it ended was killed, and becomes a run with the status KILLED.

    Args:
        folder: The run's output folder.
        uri: The store; None for the store that the journal was sent to before, or else the one of `store_uri`.

    Returns:
        The id of the run in that store.

    Raises:
        TrackingError: If there is no journal, the training still runs, or the store cannot be reached.
    """
    if not (folder / journal.FILE).is_file():
        raise TrackingError(f"{folder}: holds no {journal.FILE}; give the output folder of a training")
    if journal.is_being_written(folder):
        raise TrackingError(f"{folder}: its training is still running, and sends by itself")
    with closing(JournalSender(folder, Store(uri or previous_store(folder) or store_uri(None)))) as sender:
        run_id = sender.open()
        sender.advance()
        sender.end(journal.MLFLOW_STATUS["killed"])
    return run_id


def previous_store(folder: Path) -> str | None:
    """Return the store that a folder's journal was sent to before.

    Returns:
        None if the journal was not sent, or if the address holds a password, which only the environment knows.

    Raises:
        TrackingError: If the address holds a password and the environment names another store.
    """
    recorded = journal.read_position(folder).get("store")
    if recorded and "***" in recorded:
        if redact(store_uri(None)) != recorded:
            raise TrackingError(f"{folder}: was sent to {recorded}; set MLFLOW_TRACKING_URI to it, or give --uri")
        return None
    return recorded


def _is_packaged(folder: Path, name: str, digest: str) -> bool:
    try:
        return read_digest(folder / "artifacts" / name) == digest
    except CheckpointError:
        return False
