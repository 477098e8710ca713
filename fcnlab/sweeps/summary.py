"""Shows a sweep's trials to a reader, on the terminal or in the note of the parent run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from rich import get_console
from rich.markup import escape
from rich.table import Table

from fcnlab.core.progress import clock
from fcnlab.sweeps.result import TrialResult


def show(results: Sequence[TrialResult], monitor: str, axes: Collection[str]) -> None:
    """Print a table of the trials, and why trials failed.

    Args:
        results: The trials.
        monitor: The metric whose best value is shown.
        axes: The keys that the sweep varies.
    """
    table = Table(title="Trials", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("what")
    table.add_column("status")
    table.add_column(escape(monitor.removeprefix("val/")), justify="right")
    table.add_column("time", justify="right")
    for result in results:
        swept = [word for word in result.overrides if word.lstrip("+~").partition("=")[0] in axes]
        what = re.sub(r"\d+\.\d{7,}", lambda number: f"{float(number[0]):.6g}", " ".join(swept))
        value = "" if result.value is None else f"{result.value:.4f}"
        time = clock(result.seconds) if result.seconds else ""
        table.add_row(*map(escape, [str(result.number), what, result.status, value, time]))
    get_console().print(table)
    for line in _reasons(results):
        get_console().print(line, markup=False, highlight=False, soft_wrap=True)


def note(results: Sequence[TrialResult], axes: Collection[str], status: str, command: str) -> str:
    """Return the parent run's note in Markdown.

    Args:
        results: The trials.
        axes: The keys that the sweep varies.
        status: The status of the sweep.
        command: The command line that began the sweep, without secrets.
    """
    parts = [f"**Sweep** over {', '.join(f'`{name}`' for name in axes) or 'one training'}: {status}"]
    counts = Counter(result.status for result in results)
    if counts:
        parts.append(", ".join(f"{count} {name}" for name, count in counts.items()))
    return "\n\n".join([*parts, *_reasons(results), f"```\n{command}\n```"])


def _reasons(results: Sequence[TrialResult]) -> list[str]:
    return [f"- trial {result.number} {result.status}: {result.reason}" for result in results if result.reason]
