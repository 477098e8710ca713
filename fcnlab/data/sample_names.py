"""How the names of samples are sorted and listed."""

from __future__ import annotations

import re
from collections.abc import Iterable


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sorting key under which runs of digits compare as numbers; for equal numbers, the text decides."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], name


def first_few(items: Iterable[object], limit: int = 5) -> str:
    """Return the first items in natural order, as an error shows them: ``3, 7, 9 and 12 more``."""
    ordered = sorted(map(str, items), key=natural_key)
    text = ", ".join(ordered[:limit])
    return f"{text} and {len(ordered) - limit} more" if len(ordered) > limit else text
