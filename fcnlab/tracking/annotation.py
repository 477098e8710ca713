"""Adds to the record of a training from outside: tags after its end, or the failure that it could not record itself."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from fcnlab.config import TrackingConfig
from fcnlab.core.credentials import redact
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal


def annotate(folder: Path, tracking: TrackingConfig, tags: Mapping[str, str]) -> str | None:
    """Add tags to the run of a training that is over.

    Returns:
        The id of the run; None with ``tracking=none``.

    Raises:
        TrackingError: If the journal cannot be written, or the store cannot be reached.
    """
    with closing(Journal(folder, exist_ok=True)) as written:
        written.append("tags", values={key: redact(text) for key, text in tags.items()})
        written.flush()
    return _send(folder, tracking)


def record_failure(
    folder: Path, tracking: TrackingConfig, name: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> str | None:
    """Record the failure of a training that could not record it itself: it never began, or its process was killed.

    Args:
        folder: The output folder of the training.
        tracking: The configuration of tracking.
        name: The name of the run, if the training never began.
        params: The parameters of the run, if the training never began.
        tags: The tags to add to the run.

    Returns:
        The id of the run; None with ``tracking=none``.

    Raises:
        TrackingError: If the journal cannot be written, or the store cannot be reached.
    """
    began = (folder / journal.FILE).is_file()
    tags = {key: redact(text) for key, text in tags.items()}
    with closing(Journal(folder, exist_ok=True)) as written:
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
    return _send(folder, tracking)


def _send(folder: Path, tracking: TrackingConfig) -> str | None:
    if tracking.name != "mlflow":
        return None
    from fcnlab.tracking.journal_sender import sync  # not at the top: it imports MLflow

    return sync(folder, tracking.uri)
