"""What is said of a training by somebody else than itself, after its end or in place of its beginning."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from fcnlab.config import TrackingConfig
from fcnlab.core.credentials import redact
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal


def annotate(folder: Path, tracking: TrackingConfig, tags: Mapping[str, str]) -> str | None:
    """Add tags to a training that is over.

    Returns:
        The id of its run; None with ``tracking=none``.

    Raises:
        TrackingError: If the journal cannot be written or the store not be reached.
    """
    written = Journal(folder, exist_ok=True)
    try:
        written.append("tags", values={key: redact(text) for key, text in tags.items()})
        written.flush()
    finally:
        written.close()
    return _send(folder, tracking)


def record_failure(
    folder: Path, tracking: TrackingConfig, name: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> str | None:
    """Record that a training failed which did not say so itself: it never began, or its process was killed.

    Args:
        folder: Its output folder.
        tracking: Where it was to be recorded.
        name: Of the run, if it never began.
        params: Likewise.
        tags: Of the run; what is there already is added to.

    Returns:
        The id of its run; None with ``tracking=none``.

    Raises:
        TrackingError: If the journal cannot be written or the store not be reached.
    """
    began = (folder / journal.FILE).is_file()
    tags = {key: redact(text) for key, text in tags.items()}
    written = Journal(folder, exist_ok=True)
    try:
        if began:
            written.append("tags", values=tags)
        else:
            written.append(
                "run",
                journal=uuid.uuid4().hex,
                experiment=tracking.experiment,
                name=tracking.run_name or name,
                tags=tags,
                params={key: redact(value) for key, value in params.items()},
            )
        if not journal.has_ended(folder):
            written.append("end", status="failed")
        written.flush()
    finally:
        written.close()
    return _send(folder, tracking)


def _send(folder: Path, tracking: TrackingConfig) -> str | None:
    if tracking.name != "mlflow":
        return None
    from fcnlab.tracking.journal_sender import sync  # it brings MLflow

    return sync(folder, tracking.uri)
