"""The confusion matrix of each validation image, at the best and at the last evaluation, in a run's output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.recording import journal

if TYPE_CHECKING:
    from fcnlab.training.callbacks import EvaluationEvent

FOLDER = "image_counts"
BEST, LAST = f"{FOLDER}/best.npz", f"{FOLDER}/last.npz"
"""The files of `fcnlab.metrics.image_counts`, relative to the output folder and among a run's artifacts."""


def write(folder: Path, event: EvaluationEvent) -> None:
    """Write the counts of an evaluation as those of the last one and, if it is the best so far, of the best.

    A training that is interrupted after an evaluation and before its next state evaluates again, and writes the same.

    Raises:
        TrackingError: If the disk does not take the file.
    """
    images = event.evaluation.images
    if images is None:  # an evaluator of another package counts no images
        return
    images = images.after(event.step)
    for name in (BEST, LAST) if event.improved else (LAST,):
        try:
            images.write(folder / name)
        except OSError as error:
            raise journal.cannot_write(folder / name, error) from error
