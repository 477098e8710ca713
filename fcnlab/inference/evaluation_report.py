"""The tables and pictures of an evaluation, in a folder."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.drawing.confusion_matrix import draw_confusion_matrix, write_confusion_csv
from fcnlab.drawing.reliability import draw_reliability
from fcnlab.drawing.side_by_side import comparison, write_png

if TYPE_CHECKING:
    from fcnlab.inference.measurement import ImageResult, Measurement

log = logging.getLogger(__name__)

_MOST_BYTES = 200
"""The most bytes of a sample's name in the name of a file, which may have 255."""

FILES = (
    "metrics.json",
    "classes.csv",
    "images.csv",
    "confusion_matrix.png",
    "confusion_matrix.csv",
    "reliability.png",
    "worst",
)
"""The files and the folder that `write_report` writes."""


def write_report(measurement: Measurement, description: Mapping[str, Any], folder: Path, palette: np.ndarray) -> None:
    """Write a measurement.

    Args:
        measurement: The measurement.
        description: What was measured and how, for ``metrics.json``.
        folder: The folder, which is made when missing; an earlier evaluation in it is replaced.
        palette: The classes' colours, C x 3 uint8 RGB.

    Raises:
        FcnlabError: If a file cannot be written.
    """
    confusion, names = measurement.confusion, measurement.class_names
    report = {**description, "metrics": measurement.metrics}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        columns = (confusion.iou, confusion.dice, measurement.boundary.scores, confusion.counts.sum(axis=1))
        rows = ([name, *(row.tolist() for row in values)] for name, *values in zip(names, *columns, strict=True))
        _write_csv(folder / "classes.csv", ["class", "iou", "dice", "boundary_f1", "pixels"], rows)
        _write_csv(folder / "images.csv", _image_header(names), map(_image_row, measurement.images))
        draw_confusion_matrix(confusion.counts, names, folder / "confusion_matrix.png")
        write_confusion_csv(confusion.counts, names, folder / "confusion_matrix.csv")
        draw_reliability(measurement.calibration, folder / "reliability.png")
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot write ({error.strerror}); choose another output"
        ) from error
    for stale in (folder / "worst").glob("*.png"):  # from an earlier evaluation into the same folder
        stale.unlink()
    for rank, (result, sample, prediction) in enumerate(measurement.worst, start=1):
        picture = comparison(
            sample.image,
            sample.label,
            prediction,
            class_names=names,
            ignore_index=confusion.ignore_index,
            class_colours=palette,
        )
        # The rank makes the name unique, and images.csv has the whole names.
        name = re.sub(r"[^\w\-.]", "_", result.name).encode()[-_MOST_BYTES:].decode(errors="ignore")
        write_png(folder / "worst" / f"{rank:02d}-{name}-iou-{result.mean_iou:.4f}.png", picture)


def _image_header(names: Sequence[str]) -> list[str]:
    """Return the columns of ``images.csv``; the last ones hold the confusion matrix of the image, row by row."""
    counts = [f"{label} as {prediction}" for label in names for prediction in names]
    return ["image", "mean_iou", "pixel_accuracy", "group", "doubt", *counts]


def _image_row(result: ImageResult) -> list[Any]:
    counts = [] if result.counts is None else result.counts.ravel().tolist()
    return [result.name, result.mean_iou, result.pixel_accuracy, result.group, result.doubt, *counts]


def _write_csv(path: Path, header: list[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
