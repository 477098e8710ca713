"""How many workers trained which part of a run, as its tag `fcnlab.recording.tags.WORKERS_TAG` says it.

``2, then 3 from step 40`` is a training that two workers have begun and three have resumed after step 40.
"""

from __future__ import annotations

import re

ALONE = "1"
"""The history of a training in one process, which has no such tag."""

_COUNT = re.compile(r"(?:^|then )(\d+)")


def counts(history: str | None) -> list[int]:
    """Return the numbers of workers in their order.

    Args:
        history: The value of the tag; None if there is none.
    """
    return [int(count) for count in _COUNT.findall(history or ALONE)]


def resumed(history: str, count: int, step: int) -> str:
    """Return the history of a training after it is resumed.

    Args:
        history: The history before, `ALONE` if there is no tag.
        count: The number of workers from now on.
        step: The step after which the training is resumed.
    """
    return history if counts(history)[-1:] == [count] else f"{history}, then {count} from step {step}"


def in_words(history: list[int]) -> str:
    """Return numbers of workers as a sentence names them, such as ``2 workers, then one process``."""
    return ", then ".join("one process" if count == 1 else f"{count} workers" for count in history)
