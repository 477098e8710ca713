"""The table of an evaluation's scores, for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from fcnlab.inference.measurement import Measurement


def score_table(measurement: Measurement, title: str) -> Table:
    """Return a table with the scores of each class above the scores of all classes."""
    table = Table("class", "IoU", "Dice", "boundary F1", "pixels", title=escape(title), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    confusion = measurement.confusion
    pixels = confusion.counts.sum(axis=1)
    columns = (confusion.iou, confusion.dice, measurement.boundary.scores)
    for name, count, *scores in zip(measurement.class_names, pixels, *columns, strict=True):
        table.add_row(escape(name), *(f"{score:.4f}" for score in scores), f"{count / max(pixels.sum(), 1):.1%}")
    table.add_section()
    for name, value in measurement.metrics.items():
        if "/" not in name:
            table.add_row(name.replace("_", " "), f"{value:.4f}")
    return table
