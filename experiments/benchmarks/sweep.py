"""Measure whether two trials at once take longer, in all, than one after the other.

    python experiments/benchmarks/sweep.py

``python -m fcnlab.train -m`` sweeps over two seeds of a quarter-width FCN-8s, with 8 crops of 128 x 128 a step. Hydra's
own launcher and ``hydra/launcher=parallel`` (``pip install 'fcnlab[parallel]'``), which gives each trial half of the
cores, take turns. The time is that of the whole command.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAUNCHERS = {"in sequence": "basic", "at once": "parallel"}


def run(folder: Path, launcher: str, steps: int) -> float:
    """Run one sweep in a folder of its own, and return its seconds."""
    overrides = ["-m", "seed=1,2", f"trainer.max_steps={steps}", f"hydra/launcher={launcher}"]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    began = time.perf_counter()
    command = [sys.executable, "-m", "fcnlab.train", *overrides]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of each trial")
    parser.add_argument("--rounds", type=int, default=2, help="sweeps of each kind")
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    for _ in range(arguments.rounds):
        for name, launcher in LAUNCHERS.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(run(Path(folder), launcher, arguments.steps))
    print(f"two trials of {arguments.steps} steps of 8 x 128 x 128, FCN-8s, width 0.25, {os.cpu_count()} cores")
    for name, values in found.items():
        print(f"{name:<12}" + " ".join(f"{value:8.2f}" for value in values) + " s")
    ratios = [at_once / sequence for sequence, at_once in zip(*found.values(), strict=True)]
    print(f"at once / in sequence: {statistics.median(ratios):.3f} (median of {len(ratios)} pairs)")


if __name__ == "__main__":
    main()
