"""The local record of a run, with one JSON object on each line. Everything is written here before it is sent."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fcnlab.core import files
from fcnlab.core.errors import TrackingError
from fcnlab.core.locks import FolderLock
from fcnlab.metrics import names

log = logging.getLogger(__name__)

FILE = "journal.jsonl"
CHECKPOINTS = "checkpoints"
"""The name of the folder with a training's checkpoints, beside its journal."""
POSITION = ".journal.sent"
"""The file beside the journal that says how much of it was sent, and where to."""
_LOCK = ".journal.lock"
MLFLOW_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
"""MLflow's names for how a training ended."""


class Entry(NamedTuple):
    """One line of a journal.

    Attributes:
        kind: The kind of the entry, such as ``metrics``.
        fields: The values of the entry; ``time`` is in milliseconds since 1970.
        end: The byte offset of the end of this line in the file.
    """

    kind: str
    fields: dict[str, Any]
    end: int


class Journal:
    """Writes a journal. Each line is handed to the operating system at once, so that it outlives this process.

    Args:
        folder: The run's output folder, which is created if it is missing.
        exist_ok: Whether to continue a journal that exists already. A line that a crash cut off is removed.

    Raises:
        TrackingError: If a journal exists and ``exist_ok`` is False, if its training is still running, or if the
            folder cannot be written.
    """

    def __init__(self, folder: Path, exist_ok: bool = False) -> None:
        self.path = folder / FILE
        self._guard = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(folder / _LOCK)
        except BlockingIOError:
            raise being_written(folder) from None
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (0 if exist_ok else os.O_EXCL)
            flags |= getattr(os, "O_BINARY", 0)  # Windows would write two bytes for the end of a line
            self._file = os.open(self.path, flags, 0o644)
            if exist_ok:
                os.ftruncate(self._file, _whole_lines(self.path))
        except OSError as error:
            self._lock.release()
            if isinstance(error, FileExistsError):
                raise occupied(folder) from None
            raise cannot_write(self.path, error) from error

    def append(self, kind: str, **fields: Any) -> None:
        """Write one entry, with the current time.

        Raises:
            TrackingError: If the disk does not take the line, of which nothing is then left in the file, or if the
                journal was deleted.
        """
        self.append_all([(kind, fields)])

    def append_all(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Write entries that belong together, so that neither a kill nor a full disk leaves only some of them.

        Args:
            entries: The kind and the fields of each.

        Raises:
            TrackingError: As for `append`.
        """
        moment = int(time.time() * 1000)
        lines = "".join(
            json.dumps({"kind": kind, "time": moment, **fields}, ensure_ascii=False, separators=(",", ":")) + "\n"
            for kind, fields in entries
        ).encode()
        with self._guard:
            before = self._status().st_size
            try:
                _write_whole(self._file, lines)
            except OSError as error:
                os.ftruncate(self._file, before)
                raise cannot_write(self.path, error) from error

    def flush(self) -> None:
        """Flush the journal to the disk, so that it outlives a power cut.

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
            raise TrackingError(f"{self.path}: was deleted while the training ran, so the training ends here")
        return status

    def close(self) -> None:
        """Close the journal, after which nothing can be appended."""
        os.close(self._file)
        self._lock.release()


def is_being_written(folder: Path) -> bool:
    """Return whether a training that is still running writes the journal of this folder."""
    try:
        FolderLock(folder / _LOCK).release()
    except BlockingIOError:
        return True
    return False


def refuse_occupied(folder: Path) -> None:
    """Refuse a new training in a folder that already holds one.

    Raises:
        TrackingError: If the folder holds a training, be it over or still running.
    """
    if (folder / FILE).exists():
        raise being_written(folder) if is_being_written(folder) else occupied(folder)


def read(path: Path, offset: int = 0) -> Iterator[Entry]:
    """Yield the entries of a journal, starting at a byte offset.

    A last line without a line end is left out: it is still being written, or a crash cut it off. A damaged line is
    skipped and logged.

    Raises:
        TrackingError: If the file cannot be read.
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
            except (ValueError, KeyError, AttributeError, TypeError):
                log.warning("%s: the line that ends at byte %d is damaged and was skipped", path, offset)


def flush_to_disk(path: Path) -> None:
    """Flush a journal that another process writes, so that nothing is sent that a power cut could still undo.

    Raises:
        TrackingError: If the disk refuses.
    """
    try:
        files.sync(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_finished(folder: Path) -> bool:
    """Return whether the training in a folder finished and was not resumed since."""
    last = _last_resume_or_end(folder)
    return last is not None and last.kind == "end" and last.fields.get("status") == "finished"


def has_ended(folder: Path) -> bool:
    """Return whether the journal of a folder says how its training ended: finished, failed or killed."""
    last = _last_resume_or_end(folder)
    return last is not None and last.kind == "end"


def _last_resume_or_end(folder: Path) -> Entry | None:
    last = None
    for entry in read(folder / FILE):
        if entry.kind in ("resume", "end"):
            last = entry
    return last


def sent_to(folder: Path) -> str | None:
    """Return the id of the MLflow run that a folder's journal was sent to; None if it was not sent."""
    return read_position(folder).get("run_id")


def read_position(folder: Path) -> dict[str, Any]:
    """Return how much of a folder's journal was sent, and to which store; empty if nothing was sent."""
    try:
        return json.loads((folder / POSITION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def history(path: Path, class_names: Sequence[str] = ()) -> dict[str, list[tuple[int, float]]]:
    """Return the history of every metric in a journal: (step, value) pairs by the metric's name in Python.

    Args:
        path: The journal.
        class_names: The names of the training's classes, which a journal of an older version needs: see
            `fcnlab.metrics.names.read_all`.
    """
    return metrics(read(path), class_names)


def metrics(entries: Iterable[Entry], class_names: Sequence[str] = ()) -> dict[str, list[tuple[int, float]]]:
    """Collect every metric from a journal's entries, as `history` does from its file."""
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        if entry.kind == "metrics":
            for name, value in entry.fields["values"].items():
                series.setdefault(name, []).append((entry.fields["step"], value))
    return names.read_all(series, class_names)


def _whole_lines(path: Path) -> int:
    """Return the number of bytes up to the end of the last whole line."""
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
    """Make the error for a new training in a folder that holds one already."""
    return TrackingError(
        f"{folder} already holds a training, which this one would overwrite: choose another hydra.run.dir, or resume "
        f"that training with resume={folder}"
    )


def being_written(folder: Path) -> TrackingError:
    """Make the error for a training in a folder where another one is still running."""
    return TrackingError(
        f"{folder}: another training is running in it: choose another hydra.run.dir, or wait for its end"
    )


def cannot_write(path: Path, error: OSError) -> TrackingError:
    """Make the error for a file of the run that the disk does not take."""
    return TrackingError(
        f"{path}: cannot write ({error.strerror}); free space or choose another output folder with hydra.run.dir=..."
    )
