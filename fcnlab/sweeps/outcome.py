"""How a trial ended, in a file of its own in the sweep's folder, wherever the trial ran."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from fcnlab.core.files import replacing

FOLDER = "trials"
_END = "end"
"""A file beside the outcomes while no trial is to run: a signal does not reach the jobs of other machines."""

Status = Literal["missing", "running", "finished", "pruned", "failed", "killed"]


@dataclass
class Outcome:
    """A trial, by now.

    Attributes:
        number: Of the trial in its sweep, from 0.
        overrides: What sets it apart, such as ``["arch=fcn8s", "seed=1"]``.
        folder: Its output folder, absolute.
        status: ``pruned`` is one that the search gave up, ``missing`` one that was never begun and has no file.
        reason: Why it failed, in one line.
        value: The best value of ``trainer.monitor``.
        run_id: In MLflow.
        seconds: For which its process ran, in this sweep or in the one before.
    """

    number: int
    overrides: Sequence[str] = field(default_factory=list)
    folder: str = ""
    status: Status = "running"
    reason: str | None = None
    value: float | None = None
    run_id: str | None = None
    seconds: float = 0.0

    def write(self, sweep: Path) -> None:
        """Write it, or write over what was known of the trial.

        Raises:
            OSError: If the disk does not take it.
        """
        with replacing(sweep / FOLDER / f"{self.number}.json") as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


def ask_to_end(sweep: Path) -> None:
    """Tell every trial of a sweep, wherever it runs, to save its state and end, and those that wait not to begin."""
    (sweep / FOLDER).mkdir(exist_ok=True)
    (sweep / FOLDER / _END).touch()


def allow_to_run(sweep: Path) -> None:
    """Take that back."""
    (sweep / FOLDER / _END).unlink(missing_ok=True)


def is_to_end(sweep: Path) -> bool:
    """Whether the trials of a sweep were told to end."""
    return (sweep / FOLDER / _END).exists()


def read_all(sweep: Path) -> list[Outcome]:
    """The trials of a sweep that have begun, by number; what cannot be read is left out."""
    found = []
    for path in (sweep / FOLDER).glob("*.json"):
        try:
            found.append(Outcome(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda outcome: outcome.number)
