"""Shows a comparison on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fcnlab.comparison.comparison import Comparison
from fcnlab.comparison.texts import beside_the_best, cells, costs, explanation, mean_and_spread, remarks
from fcnlab.metrics.names import IOU

_MAX_CLASSES = 6


def show(comparison: Comparison, console: Console) -> None:
    """Print the conclusion, a table of the groups, one of the classes, and what to know about them."""
    console.print(comparison.conclusion, markup=False, highlight=False)
    metric = escape(comparison.monitor.removeprefix("val/"))
    table = Table(title=f"{metric} by {escape(', '.join(comparison.axes)) or 'seed'}", title_justify="left")
    table.add_column("group", overflow="fold", min_width=8)
    for name in ("n", "mean ± sd", "difference, 95 % interval", "pairs", "p", "verdict"):
        table.add_column(name, justify="right")
    for group in comparison.groups:
        table.add_row(
            *(escape(group.label) or "all", *cells(comparison, group)),
            style="bold" if group is comparison.best else None,
        )
    console.print(table)
    if any(any(costs(group)) for group in comparison.groups):
        console.print(_cost_table(comparison))
    if comparison.class_names:
        console.print(_class_table(comparison))
    for line in remarks(comparison):
        console.print(f"- {line}", markup=False, highlight=False)
    if comparison.best_trial is not None:
        best = comparison.best_trial
        line = f"best training: {best.run_id} ({best.name}){beside_the_best(comparison)}"
        console.print(line, markup=False, highlight=False)
    if comparison.reference is not None and len(comparison.groups) > 1:
        console.print(explanation(comparison), markup=False, highlight=False)


def _cost_table(comparison: Comparison) -> Table:
    """Return a table of the size of each network, and of its time."""
    table = Table(title="what a training costs", title_justify="left")
    table.add_column("group", overflow="fold", min_width=8)
    for name in ("parameters", "time", "images/s"):
        table.add_column(name, justify="right")
    for group in comparison.groups:
        table.add_row(escape(group.label) or "all", *costs(group))
    return table


def _class_table(comparison: Comparison) -> Table:
    """Return a table of the IoU by class; of many classes, those in which the groups differ most."""
    names = comparison.class_names
    title = "IoU of each class, mean ± sd"
    if len(names) > _MAX_CLASSES:

        def spread(name: str) -> float:
            values = [value for group in comparison.groups for value in group.values(f"{IOU}{name}")]
            return max(values) - min(values)

        names = sorted(sorted(names, key=spread, reverse=True)[:_MAX_CLASSES])
        title = f"IoU of the {_MAX_CLASSES} classes in which they differ most, mean ± sd"
    table = Table(title=title, title_justify="left")
    table.add_column("group", overflow="fold", min_width=8)
    for name in names:
        table.add_column(escape(name), justify="right", overflow="fold")
    for group in comparison.measured:
        table.add_row(escape(group.label) or "all", *(mean_and_spread(group, f"{IOU}{name}") for name in names))
    return table
