"""How a comparison reads: the cells of its tables, and what a reader must know about them."""

from __future__ import annotations

import math

from fcnlab.comparison.comparison import Comparison
from fcnlab.comparison.groups import Group, why_left_out
from fcnlab.comparison.significance import Difference
from fcnlab.core.progress import clock


def cells(comparison: Comparison, group: Group) -> list[str]:
    """Return a group's texts, empty where nothing is known.

    Returns:
        The number of trainings, mean and deviation, difference, pairs, p, parameters, time and images per second.
    """
    found = comparison.differences.get(group.label)
    if group is comparison.reference:
        difference = ["reference", "", ""]
    else:
        difference = ["", "", ""] if found is None else [_interval(found), str(found.pairs), _probability(found.p)]
    return [
        counted(group),
        mean_and_spread(group, comparison.monitor),
        *difference,
        f"{group.parameters:,}" if group.parameters else "",
        "" if math.isnan(group.seconds) else clock(group.seconds),
        "" if math.isnan(group.images_per_second) else f"{group.images_per_second:.1f}",
    ]


def counted(group: Group) -> str:
    """Return how many trainings have a value, and of how many if some have none."""
    missing = len(group.missing)
    return f"{len(group.trials)} of {len(group.trials) + missing}" if missing else str(len(group.trials))


def mean_and_spread(group: Group, metric: str) -> str:
    """Return a text such as ``0.7192 ± 0.0031``; empty without a value."""
    mean, spread = group.mean(metric), group.spread(metric)
    if math.isnan(mean):
        return ""
    return f"{mean:.4f}" if math.isnan(spread) else f"{mean:.4f} ± {spread:.4f}"


def explanation(comparison: Comparison) -> str:
    """Explain in words what the numbers are."""
    reference = comparison.reference
    chosen = ""
    if reference is comparison.best:
        chosen = " (the best by the same numbers, which flatters it)"
    elif comparison.best is None and reference.trials:
        chosen = " (no group is the best; this one has the best mean)"
    return (
        f"sd is the standard deviation over seeds (n - 1). Differences are from {reference.label or 'the only group'}"
        f"{chosen} and paired by seed; their interval is Student's t interval over as many pairs as the table says. "
        "p comes from the paired t-test, corrected after Holm. Fewer than two common seeds give neither."
    )


def left_out(comparison: Comparison) -> list[str]:
    """Return a line for each training that does not count, with the reason; pruned ones are as the search wanted."""
    return [
        f"{trial.name} ({trial.run_id[:8]}): {why_left_out(trial, comparison.monitor)}"
        for group in comparison.groups
        for trial in group.missing
        if not trial.pruned
    ]


def beside_the_best(comparison: Comparison) -> str:
    """Return what to add to the best training if it does not belong to the best group; empty otherwise."""
    if comparison.best is None or any(trial is comparison.best_trial for trial in comparison.best.trials):
        return ""
    return ", not of the best group"


def _interval(difference: Difference) -> str:
    """Return a text such as ``-0.0312 [-0.0401, -0.0223]``."""
    if math.isnan(difference.mean):
        return ""
    interval = "" if math.isnan(difference.low) else f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{difference.mean:+.4f}{interval}"


def _probability(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
