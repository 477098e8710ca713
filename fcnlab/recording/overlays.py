"""The pictures that an evaluation leaves in a run's output folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fcnlab.config import DatasetConfig
from fcnlab.drawing.side_by_side import comparison, write_png
from fcnlab.training.callbacks import EvaluationEvent

FOLDER = "overlays"


def write_overlays(folder: Path, record: EvaluationEvent, dataset: DatasetConfig) -> Iterator[tuple[str, Path]]:
    """Write a picture of each sample that an evaluation kept: image, label and prediction side by side.

    Args:
        folder: The run's output folder.
        record: The evaluation.
        dataset: The configuration of the data set, which gives the colours.

    Yields:
        The name of each sample and the path of its picture.

    Raises:
        TrackingError: If the disk does not take a picture.
    """
    for number, (sample, prediction) in enumerate(record.evaluation.samples):
        path = folder / FOLDER / f"{record.step:06d}-{number}.png"
        picture = comparison(
            sample.image,
            sample.label,
            prediction,
            num_classes=dataset.num_classes,
            ignore_index=dataset.ignore_index,
            class_colours=dataset.palette or None,
        )
        write_png(path, picture)
        yield sample.name, path
