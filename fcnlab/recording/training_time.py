"""How long a training ran, by the times in its journal."""

from __future__ import annotations

from fcnlab.recording.journal import Entry


class TrainingTime:
    """Adds up the time that a training ran, without the time between an interruption and the resumption."""

    def __init__(self) -> None:
        self._milliseconds = 0
        self._last: int | None = None

    def add(self, entry: Entry) -> None:
        """Count the time until the next entry of the journal, which begins, resumes or continues the training."""
        moment = entry.fields["time"]
        if self._last is not None and entry.kind not in ("run", "resume"):
            self._milliseconds += moment - self._last
        self._last = moment

    @property
    def seconds(self) -> float:
        """The time up to the last entry that was added."""
        return self._milliseconds / 1000
