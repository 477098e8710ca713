"""The figures of one run, from its journal and its best evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcnlab.drawing.confusion_matrix import draw_confusion_matrix, write_confusion_csv
from fcnlab.drawing.learning_curves import draw_learning_curves
from fcnlab.recording import journal

log = logging.getLogger(__name__)

FOLDER = "figures"


def draw(folder: Path, counts: np.ndarray | None, class_names: Sequence[str]) -> None:
    """Draw learning curves and confusion matrix into the folder ``figures`` of a run's output folder.

    If the disk does not take them, this is logged and no error: the journal still holds all numbers.

    Args:
        folder: The output folder.
        counts: The confusion matrix, C x C integers; rows are labels, columns predictions. None if there is none.
        class_names: The names of the C classes.
    """
    target = folder / FOLDER
    try:
        history = journal.history(folder / journal.FILE, class_names)
        draw_learning_curves(history, target / "learning_curves.png")
        if counts is not None:
            draw_confusion_matrix(counts, class_names, target / "confusion_matrix.png")
            write_confusion_csv(counts, class_names, target / "confusion_matrix.csv")
    except OSError as error:
        log.warning("%s: cannot draw the figures (%s)", target, error.strerror)
