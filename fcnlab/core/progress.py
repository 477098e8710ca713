"""Shows the progress of long work: a bar with rate and remaining time on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def tracked(
    items: Iterable[Item], total: int, what: str, console: Console, seconds_between_lines: float = 10.0
) -> Iterator[Item]:
    """Yield items and show how many are done.

    The rate leaves out the first item, which waits for the compiler, and is not shown before there is a second one.

    Args:
        items: The items; each counts as done when the next one is asked for.
        total: The number of items.
        what: The name of the items, such as "images".
        console: Where to show it; a terminal gets a live bar, anything else a line every few seconds.
        seconds_between_lines: The time between two lines, in seconds.
    """
    began = spoke = time.monotonic()
    done = 0
    bar = None
    if console.is_terminal:
        bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}  {task.fields[rate]}  left"),
            TimeRemainingColumn(),
            console=console,
        )
        task = bar.add_task(what, total=total, rate="")
        bar.start()
    try:
        for item in items:
            yield item
            done += 1
            now = time.monotonic()
            if done == 1:
                began = now
            rate = (done - 1) / (now - began) if now > began else 0.0
            if bar is not None:
                bar.update(task, completed=done, rate=f"{rate:.1f}/s" if rate else "")
            elif now - spoke >= seconds_between_lines and done < total:
                spoke = now
                left = f"  {rate:.1f}/s  left {clock((total - done) / rate)}" if rate else ""
                log.info("%d/%d %s%s", done, total, what, left)
    finally:
        if bar is not None:
            bar.stop()


def in_words(seconds: float) -> str:
    """Format a time in seconds for a sentence, such as ``9 s``, ``1 min 5 s`` or ``2 h 0 min``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def clock(seconds: float) -> str:
    """Format a time in seconds, such as ``1:05`` or ``2:00:09``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
