"""The pictures that an evaluation leaves in a run's output folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fcnlab.config import DatasetConfig
from fcnlab.drawing.captions import caption
from fcnlab.drawing.contact_sheet import contact_sheet, contact_strip, read_strip, shown_places
from fcnlab.drawing.side_by_side import comparison, write_png
from fcnlab.recording import run_figures
from fcnlab.training.callbacks import EvaluationEvent

FOLDER = "overlays"

CONTACT_SHEET = "contact_sheet.png"
"""The picture of the whole training among its figures."""

_STRIP = "worst-median-best.png"
_STRIP_KEY = "overview/worst median and best image"


def write_overlays(folder: Path, record: EvaluationEvent, dataset: DatasetConfig) -> Iterator[tuple[str, Path]]:
    """Write a picture of each sample that an evaluation kept, and one of its worst, median and best image.

    The contact sheet among the run's figures is written anew from the latter.

    Args:
        folder: The run's output folder.
        record: The evaluation.
        dataset: The configuration of the data set, which gives the colours.

    Yields:
        What each picture shows, as a path of names, and the path of its file.

    Raises:
        TrackingError: If the disk does not take a picture.
    """
    evaluation = record.evaluation
    drawn_as = {
        "class_names": evaluation.class_names,
        "ignore_index": dataset.ignore_index,
        "class_colours": dataset.palette,
    }
    for number, (sample, prediction) in enumerate(evaluation.samples):
        path = folder / FOLDER / f"{record.step:06d}-{number}.png"
        write_png(path, comparison(sample.image, sample.label, prediction, **drawn_as))
        yield f"overlay/{sample.name}", path
    if evaluation.ranked:
        path = folder / FOLDER / f"{record.step:06d}-{_STRIP}"
        images = [
            (
                f"{one.role}, mean IoU {one.mean_iou:.3f}: {caption(one.sample.name)}",
                one.sample.image,
                one.sample.label,
                one.prediction,
            )
            for one in evaluation.ranked
        ]
        mean_iou = evaluation.confusion.mean_iou
        title = f"step {record.step:,}, epoch {record.epoch:,}: mean IoU of all images {mean_iou:.3f}"
        write_png(path, contact_strip(images, title, **drawn_as))
        yield _STRIP_KEY, path
        _write_contact_sheet(folder, record.step)


def _write_contact_sheet(folder: Path, last_step: int) -> None:
    """Write the contact sheet anew from the rows of all evaluations up to this step.

    A resumed training may have rows of later ones, which are left out.
    """
    rows = {int(path.name.partition("-")[0]): path for path in (folder / FOLDER).glob(f"[0-9]*-{_STRIP}")}
    steps = sorted(step for step in rows if step <= last_step)
    strips = [read_strip(rows[steps[place]]) for place in shown_places(len(steps))]
    whole = [strip for strip in strips if strip is not None]  # a kill may have left one half written
    write_png(folder / run_figures.FOLDER / CONTACT_SHEET, contact_sheet(whole))
