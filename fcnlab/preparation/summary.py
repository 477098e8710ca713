"""A table of what labels hold and what became of it, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from fcnlab.preparation.annotated_images import Originals
from fcnlab.preparation.pixel_statistics import PixelStatistics


def show(found: Originals, statistics: Mapping[str, PixelStatistics]) -> None:
    """Print the classes, what each was in the labels, and its share of the pixels of each split.

    Args:
        found: What was prepared.
        statistics: The statistics of each split.
    """
    from rich import get_console
    from rich.markup import escape
    from rich.table import Table

    splits = {split: counted.class_pixels for split, counted in statistics.items() if counted.pixels}
    sources: dict[str, list[str]] = {}
    for what, name in found.meaning:
        sources.setdefault(name, []).append(what)
    table = Table(title="What the labels hold", title_justify="left")
    table.add_column("class", overflow="fold")
    table.add_column("in the labels", overflow="fold")
    for split in splits:
        table.add_column(split, justify="right")
    for index, name in enumerate(found.class_names):
        shares = [f"{counts[index] / max(counts.sum(), 1):.2%}" for counts in splits.values()]
        table.add_row(escape(name), escape(", ".join(sources.get(name, [str(index)]))), *shares)
    void = [f"{1 - counts.sum() / max(statistics[split].pixels, 1):.2%}" for split, counts in splits.items()]
    table.add_section()
    table.add_row("void, of all pixels", escape(", ".join(sources.get("void", ["255"]))), *void)
    get_console().print(table)
