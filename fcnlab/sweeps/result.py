"""The result of each trial: a file in the sweep's folder, wherever the trial ran."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fcnlab.core.errors import TrackingError
from fcnlab.core.files import replacing

if TYPE_CHECKING:
    from fcnlab.comparison.trials import Trial

log = logging.getLogger(__name__)

FOLDER = "trials"

Status = Literal["missing", "running", "finished", "pruned", "failed", "killed"]


@dataclass
class TrialResult:
    """What a trial has reached so far.

    The trial's job writes it before the trial's process starts, that process writes what it reached, and whoever
    outlives a process that died writes why.

    Attributes:
        number: The number of the trial in its sweep, from 0.
        overrides: The overrides that set the trial apart, such as ``["arch=fcn8s", "seed=1"]``.
        folder: The absolute path of its output folder.
        status: ``pruned`` if the search ended it early; ``missing`` if it was never begun and has no file.
        reason: Why it failed, in one line.
        value: The best value of ``trainer.monitor``; None if there is no finite one.
        run_id: The id of its MLflow run.
        seconds: How long it trained by its journal, as a comparison says; how long its process ran if it failed.
    """

    number: int
    overrides: Sequence[str] = field(default_factory=list)
    folder: str = ""
    status: Status = "running"
    reason: str | None = None
    value: float | None = None
    run_id: str | None = None
    seconds: float = 0.0

    @property
    def succeeded(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status in ("finished", "pruned")

    def fail(self, reason: str) -> None:
        """Say that the trial failed, and why."""
        self.status, self.reason = "failed", reason

    def write(self, sweep: Path) -> None:
        """Write the result into the sweep's folder, in place of an earlier one.

        Raises:
            OSError: If the disk does not take it.
        """
        with replacing(_path(sweep, self.number)) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read(sweep: Path, number: int) -> TrialResult | None:
    """Read the result of one trial; None if there is none, or it is damaged."""
    return _read(_path(sweep, number))


def read_all(sweep: Path) -> list[TrialResult]:
    """Read the results of all trials that have begun, by number; damaged ones are left out."""
    found = [result for path in (sweep / FOLDER).glob("*.json") if (result := _read(path)) is not None]
    return sorted(found, key=lambda result: result.number)


def read_trainings(results: Iterable[TrialResult]) -> list[Trial]:
    """Read the trainings of a sweep's trials, without those that left no journal."""
    from fcnlab.comparison.trials import read_folder  # not at the top: it imports numpy

    trainings = []
    for result in results:
        if result.status == "missing":
            continue
        try:
            trainings.append(read_folder(Path(result.folder)))
        except TrackingError as error:
            log.debug("%s", error)
    return trainings


def _path(sweep: Path, number: int) -> Path:
    return sweep / FOLDER / f"{number}.json"


def _read(path: Path) -> TrialResult | None:
    try:
        return TrialResult(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
