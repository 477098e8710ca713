"""Draws the figures of a run in the background, while its last checkpoints are being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import numpy as np

from fcnlab.core.errors import TrackingError
from fcnlab.core.imports import import_ahead
from fcnlab.drawing.figures import FIGURE_MODULES
from fcnlab.recording import run_figures
from fcnlab.training.callbacks import EvaluationEvent

Draw = Callable[[Path, np.ndarray | None, Sequence[str]], Future]
"""Takes the arguments of `run_figures.draw` and draws in another process."""


class BackgroundFigures:
    """Draws the figures of a run once: in another process if there is one, otherwise in a thread.

    Args:
        folder: The run's output folder.
        draw: Draws in another process; None if there is none.
    """

    def __init__(self, folder: Path, draw: Draw | None = None) -> None:
        self.folder = folder
        self._draw = draw
        self._drawing: Future | None = None

    def prepare(self) -> None:
        """Import what drawing needs, if this process is to draw."""
        if self._draw is None:
            import_ahead(*FIGURE_MODULES)

    def start(self, best: EvaluationEvent | None) -> None:
        """Begin to draw.

        Args:
            best: The best evaluation, whose confusion matrix is drawn; None if there was no evaluation.
        """
        self._drawing = self._begin(_arguments(self.folder, best))

    def finish(self, best: EvaluationEvent | None) -> None:
        """Wait for the figures, after beginning to draw them where nobody has called `start`.

        Args:
            best: As for `start`.
        """
        if self._drawing is None:
            self.start(best)
        while not self._drawing.done():
            wait([self._drawing], 0.1)  # in short turns, so that Ctrl-C is heard
        if self._drawing.exception() is not None:  # the other process was lost; a bug shows again here
            run_figures.draw(*_arguments(self.folder, best))

    def _begin(self, arguments: tuple[Path, np.ndarray | None, Sequence[str]]) -> Future:
        if self._draw is not None:
            with suppress(TrackingError):
                return self._draw(*arguments)
        pool = ThreadPoolExecutor(1, "fcnlab-figures")
        drawing = pool.submit(run_figures.draw, *arguments)
        pool.shutdown(wait=False)
        return drawing


def _arguments(folder: Path, best: EvaluationEvent | None) -> tuple[Path, np.ndarray | None, Sequence[str]]:
    if best is None:
        return folder, None, []
    return folder, best.evaluation.confusion.counts, best.evaluation.class_names
