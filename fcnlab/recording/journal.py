"""The local record of a run: whatever is to be known of it stands here first, one JSON object a line."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fcnlab.core import files
from fcnlab.core.errors import TrackingError
from fcnlab.core.locks import FolderLock

log = logging.getLogger(__name__)

FILE = "journal.jsonl"
POSITION = ".journal.sent"
"""How far its upload got."""
MLFLOW_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
"""From what a journal's ``end`` says to what MLflow calls it."""


class Entry(NamedTuple):
    """One line of a journal.

    Attributes:
        kind: Such as ``metrics``; `fcnlab.recording.recorder` writes them, `fcnlab.tracking.journal_sender` sends them.
        fields: What it says; ``time`` is in milliseconds since 1970.
        end: Bytes from the beginning of the file to the end of this line.
    """

    kind: str
    fields: dict[str, Any]
    end: int


class Journal:
    """Writes a journal. A line is handed to the operating system whole, at once, so that it outlives this process.

    Args:
        folder: The run's output folder, made when missing.
        go_on: Whether to add to the journal that is there. A line that a crash cut off is removed.

    Raises:
        TrackingError: If the folder already holds the journal of a training that is not to go on, if that training is
            alive, or if the folder cannot be written.
    """

    def __init__(self, folder: Path, go_on: bool = False) -> None:
        self.path = folder / FILE
        self._guard = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(folder / ".journal.lock")
        except BlockingIOError:
            raise being_written(folder) from None
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (0 if go_on else os.O_EXCL)
            self._file = os.open(self.path, flags, 0o644)
            if go_on:
                os.ftruncate(self._file, _whole_lines(self.path))
        except OSError as error:
            self._lock.release()
            if isinstance(error, FileExistsError):
                raise occupied(folder) from None
            raise cannot_write(self.path, error) from error

    def append(self, kind: str, **fields: Any) -> None:
        """Write one entry, with the time.

        Raises:
            TrackingError: If the disk does not take it, when nothing of the line is left behind, or if the journal was
                deleted.
        """
        entry = {"kind": kind, "time": int(time.time() * 1000), **fields}
        line = (json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
        with self._guard:
            before = self._status().st_size
            try:
                _write_whole(self._file, line)
            except OSError as error:
                os.ftruncate(self._file, before)
                raise cannot_write(self.path, error) from error

    def flush(self) -> None:
        """Make what is written outlive a power cut.

        Raises:
            TrackingError: If the disk refuses, or the journal was deleted.
        """
        self._status()
        try:
            os.fsync(self._file)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _status(self) -> os.stat_result:
        status = os.fstat(self._file)
        if status.st_nlink == 0:
            raise TrackingError(f"{self.path}: was deleted while the training ran, which ends here")
        return status

    def close(self) -> None:
        """Nothing can be appended afterwards."""
        os.close(self._file)
        self._lock.release()


def is_being_written(folder: Path) -> bool:
    """Whether a training that is still alive writes the journal of this folder."""
    try:
        FolderLock(folder / ".journal.lock").release()
    except BlockingIOError:
        return True
    return False


def refuse_occupied(folder: Path) -> None:
    """Refuse a folder in which a training was made, or is being made, for a new one.

    Raises:
        TrackingError: If it is.
    """
    if (folder / FILE).exists():
        raise being_written(folder) if is_being_written(folder) else occupied(folder)


def read(path: Path, offset: int = 0) -> Iterator[Entry]:
    """The entries from a byte offset on.

    A line without an end is still being written, or was cut off by a crash: it is left out. A damaged line is skipped
    and logged.

    Raises:
        TrackingError: If there is no such file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise TrackingError(f"{path}: cannot read the journal ({error.strerror})") from error
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                fields = json.loads(line)
                yield Entry(fields.pop("kind"), fields, offset)
            except (ValueError, KeyError, AttributeError):
                log.warning("%s: the line that ends at byte %d is damaged and was skipped", path, offset)


def sync(path: Path) -> None:
    """Make what a journal holds outlive a power cut, so that nobody else is told what it could still lose.

    Raises:
        TrackingError: If the disk refuses.
    """
    try:
        files.sync(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_finished(folder: Path) -> bool:
    """Whether the training of a folder came to its end, and nobody went on with it since."""
    last = _last_turn(folder)
    return last is not None and last.kind == "end" and last.fields.get("status") == "finished"


def has_ended(folder: Path) -> bool:
    """Whether a journal says how its training ended, whichever way."""
    last = _last_turn(folder)
    return last is not None and last.kind == "end"


def _last_turn(folder: Path) -> Entry | None:
    """The last time that the training went on or ended."""
    last = None
    for entry in read(folder / FILE):
        if entry.kind in ("resume", "end"):
            last = entry
    return last


def sent_to(folder: Path) -> str | None:
    """The run that a folder's journal was sent to; None if it was not sent."""
    return read_position(folder).get("run_id")


def read_position(folder: Path) -> dict[str, Any]:
    """How far an upload of a folder's journal got, and in which store; empty if there was none."""
    try:
        return json.loads((folder / POSITION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def history(path: Path, class_names: Sequence[str] = ()) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a journal by its name in Python: its values with their steps, in the order of writing.

    Args:
        path: The journal.
        class_names: Of the training, for a journal of an older version: see `fcnlab.metrics.names.read_all`.
    """
    # Not at the top: it brings OpenCV, and this module is part of every command's start.
    from fcnlab.metrics import names

    series: dict[str, list[tuple[int, float]]] = {}
    for entry in read(path):
        if entry.kind == "metrics":
            for name, value in entry.fields["values"].items():
                series.setdefault(name, []).append((entry.fields["step"], value))
    return names.read_all(series, class_names)


def _whole_lines(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(end - 2**16, 0)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _write_whole(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def occupied(folder: Path) -> TrackingError:
    """What a user is told whose new training is to go where another one was."""
    return TrackingError(
        f"{folder} already holds a training, which this one would write over: choose another hydra.run.dir, or go on "
        f"with that one: resume={folder}"
    )


def being_written(folder: Path) -> TrackingError:
    """What a user is told whose training is to go where another one still runs."""
    return TrackingError(
        f"{folder}: another training is running in it: choose another hydra.run.dir, or wait for its end"
    )


def cannot_write(path: Path, error: OSError) -> TrackingError:
    """What a user is told when the disk does not take a file of the run."""
    return TrackingError(
        f"{path}: cannot write ({error.strerror}); free space or choose another output folder with hydra.run.dir=..."
    )
