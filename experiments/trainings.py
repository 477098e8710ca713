"""What the studies of this folder have in common: they call commands, and read what trainings have left.

A study is started from the folder above this one, as in ``python -m experiments.transfer.study``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from fcnlab.config import compose, override
from fcnlab.evaluate import evaluate as measure
from fcnlab.recording import journal

TEST = "test"
"""The folder below a training's own with what `evaluate` wrote."""


def run(command: str, *words: str) -> None:
    """Run a command of the package, and end the study if it fails."""
    subprocess.run([sys.executable, "-m", f"fcnlab.{command}", *words], check=True)


def evaluate(training: Path, *words: str) -> None:
    """Measure the weights of a training on the images that the words name, unless that is done."""
    if not (training / TEST / "metrics.json").exists():
        given = [override("checkpoint", training), *words, override("output", training / TEST)]
        measure(compose(given, "evaluate"))  # in this process, since MindSpore takes seconds to start


def tested(training: Path) -> dict[str, float]:
    """Return the metrics that `evaluate` wrote; none if it was not called yet."""
    path = training / TEST / "metrics.json"
    return json.loads(path.read_text())["metrics"] if path.exists() else {}


def smoothed_losses(training: Path, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the last of each so many steps, and the mean of their losses."""
    losses = [value for _, value in journal.history(training / journal.FILE)["train/loss"]]
    mean = np.convolve(losses, np.ones(steps) / steps, mode="valid")
    return np.arange(steps, len(losses) + 1), mean


def peak_memory(training: Path) -> float:
    """Return the most memory that a training was seen to take, in GiB; NaN if it was not looked at."""
    points = journal.history(training / journal.FILE).get("system/process_memory_megabytes", ())
    return max((value for _, value in points), default=float("nan")) / 1024


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows with the same columns as a table in Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
