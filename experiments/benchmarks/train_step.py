"""Time one training step of fcnlab against the plain reference in `reference.py`.

Each is timed in processes of its own, by turns, so that neither inherits the other's memory or a slow minute of the
machine::

    python experiments/benchmarks/train_step.py --width 1 --batch 2 --size 256
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

NUM_CLASSES = 2
LEARNING_RATE = 1e-4
SUBJECTS = ("reference", "product")


def reference_step(width: float) -> Callable:
    """Called with images and labels."""
    from reference import build_step

    return build_step(NUM_CLASSES, width, LEARNING_RATE)


def product_step(width: float) -> Callable:
    """Called with images and labels."""
    import mindspore as ms

    from fcnlab.losses import CrossEntropy
    from fcnlab.models import build_model
    from fcnlab.training.optimizers import Adam
    from fcnlab.training.step import TrainStep

    network = build_model("fcn8s", NUM_CLASSES, width)
    loss = CrossEntropy(ignore_index=255, num_classes=NUM_CLASSES)
    step = TrainStep(network, loss, Adam(network.trainable_params()))
    learning_rate = ms.Tensor(LEARNING_RATE, ms.float32)
    return lambda images, labels: step(images, labels, learning_rate)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Seconds of the first step (compilation included) and of each step after the warm-up, in this process."""
    import mindspore as ms
    import numpy as np

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    generator = np.random.default_rng(0)
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    images = ms.Tensor(generator.standard_normal(shape, dtype=np.float32))
    labels = ms.Tensor(generator.integers(0, NUM_CLASSES, (shape[0], *shape[2:])).astype(np.int32))
    step = {"reference": reference_step, "product": product_step}[arguments.subject](arguments.width)
    seconds = []
    for _ in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        loss = float(step(images, labels).asnumpy())
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "steps": seconds[arguments.warmup :], "loss": loss}


def compare(arguments: argparse.Namespace) -> None:
    """Run both subjects by turns in subprocesses and print the table."""
    forwarded = [f"--{key}={getattr(arguments, key)}" for key in ("width", "batch", "size", "steps", "warmup")]
    steps: dict[str, list[float]] = {subject: [] for subject in SUBJECTS}
    first: dict[str, list[float]] = {subject: [] for subject in SUBJECTS}
    for _ in range(arguments.rounds):
        for subject in SUBJECTS:
            command = [sys.executable, __file__, f"--subject={subject}", *forwarded]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result = json.loads(output.splitlines()[-1])
            steps[subject] += result["steps"]
            first[subject].append(result["first"])
    print(
        f"FCN-8s, width {arguments.width:g}, {arguments.batch} x {arguments.size} x {arguments.size}, "
        f"{arguments.rounds} processes of {arguments.steps} steps each"
    )
    print(f"{'seconds a step':<16}{'min':>8}{'median':>8}{'max':>8}{'first':>8}")
    for subject in SUBJECTS:
        numbers = (min(steps[subject]), statistics.median(steps[subject]), max(steps[subject]), min(first[subject]))
        print(f"{subject:<16}" + "".join(f"{number:8.3f}" for number in numbers))
    medians = [statistics.median(steps[subject]) for subject in SUBJECTS]
    minima = [min(steps[subject]) for subject in SUBJECTS]
    print(f"product / reference: {medians[1] / medians[0]:.3f} (medians), {minima[1] / minima[0]:.3f} (minima)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    parser.add_argument("--batch", type=int, default=2, help="images a step")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a process")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock counts, at least 1")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each of the two")
    parser.add_argument("--subject", choices=SUBJECTS, help="time only this, in this process, and print JSON")
    arguments = parser.parse_args()
    if arguments.subject:
        print(json.dumps(measure(arguments)))
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
