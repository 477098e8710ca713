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
    """Draw learning curves and confusion matrix into ``figures`` below a run's output folder.

    A disk that does not take them is logged: the numbers are in the journal, and that is no reason to call the training
    failed.

    Args:
        folder: The output folder.
        counts: The confusion matrix, C x C integers; rows are labels, columns predictions. None: there is none.
        class_names: C of them.
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
