"""What is known of a metric by its name."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of this metric is better: true of all but the loss."""
    return metric != "val/loss"


def best_of(metric: str, values: Iterable[float]) -> float | None:
    """The best of some values of a metric; None if none of them is a number."""
    numbers = [value for value in values if not isnan(value)]
    if not numbers:
        return None
    return max(numbers) if higher_is_better(metric) else min(numbers)
