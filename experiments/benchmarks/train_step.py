"""Time fcnlab against the plain reference in `reference.py`, or against PyTorch, by turns in one go.

Each is timed in processes of its own, so that neither inherits the other's memory or a slow minute of the machine::

    python experiments/benchmarks/train_step.py --against reference
    python experiments/benchmarks/train_step.py --against pytorch --what inference
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

NUM_CLASSES = 2
LEARNING_RATE = 1e-4
PRODUCT = "product"
OTHERS = ("reference", "pytorch")


class Subject(NamedTuple):
    """What is timed: called with images and labels; the first returns the loss, the second waits for the logits."""

    step: Callable[[np.ndarray, np.ndarray], float]
    inference: Callable[[np.ndarray], object]


def product(width: float) -> Subject:
    """`fcnlab.models`, loss, optimizer and step, as ``python -m fcnlab.train`` uses them."""
    import mindspore as ms

    from fcnlab.losses import CrossEntropy
    from fcnlab.training.optimizers import Adam
    from fcnlab.training.step import TrainStep

    network = _network(width)
    loss = CrossEntropy(ignore_index=255, num_classes=NUM_CLASSES)
    return _mindspore_subject(
        network,
        lambda: TrainStep(network, loss, Adam(network.trainable_params())),
        (ms.Tensor(LEARNING_RATE, ms.float32),),
    )


def reference(width: float) -> Subject:
    """The same layers of stock MindSpore parts."""
    from reference import FCN8s, build_step

    network = FCN8s(NUM_CLASSES, width)
    return _mindspore_subject(network, lambda: build_step(network, LEARNING_RATE), ())


def _mindspore_subject(network: Any, make_step: Callable[[], Any], extra: tuple) -> Subject:
    from mindspore import Tensor

    made: list[Any] = []

    def step(images: np.ndarray, labels: np.ndarray) -> float:
        if not made:
            made.append(make_step())
        return float(made[0](Tensor(images), Tensor(labels), *extra).asnumpy())

    return Subject(step, lambda images: network.set_train(False)(Tensor(images)).asnumpy())


def pytorch(width: float) -> Subject:
    """The same network, with the same weights, in PyTorch."""
    import torch
    from pytorch import FCN8s, build_step

    network = FCN8s(NUM_CLASSES, width)
    network.copy_weights({parameter.name: parameter.asnumpy() for parameter in _network(width).trainable_params()})
    step = build_step(network, LEARNING_RATE)

    def inference(images: np.ndarray) -> object:
        with torch.inference_mode():
            return network.eval()(torch.from_numpy(images)).numpy()

    return Subject(lambda images, labels: step(torch.from_numpy(images), torch.from_numpy(labels).long()), inference)


def _network(width: float) -> Any:
    from fcnlab.models import build_model

    return build_model("fcn8s", NUM_CLASSES, width, dropout=0.0)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Seconds of the first call (compilation included) and of each after the warm-up, in this process."""
    from fcnlab import device

    device.configure("cpu")
    generator = np.random.default_rng(0)
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    images = generator.standard_normal(shape, dtype=np.float32)
    labels = generator.integers(0, NUM_CLASSES, (shape[0], *shape[2:])).astype(np.int32)
    subject = {PRODUCT: product, "reference": reference, "pytorch": pytorch}[arguments.subject](arguments.width)
    seconds, losses = [], []
    for _ in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        if arguments.what == "step":
            losses.append(subject.step(images, labels))
        else:
            subject.inference(images)
        seconds.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"first": seconds[0], "steps": seconds[arguments.warmup :], "losses": losses, "memory": memory}


def compare(arguments: argparse.Namespace) -> None:
    """Run both subjects by turns in subprocesses and print the table."""
    forwarded = [f"--{key}={getattr(arguments, key)}" for key in ("what", "width", "batch", "size", "steps", "warmup")]
    subjects = (arguments.against, PRODUCT)
    results: dict[str, list[dict]] = {subject: [] for subject in subjects}
    for _ in range(arguments.rounds):
        for subject in subjects:
            command = [sys.executable, __file__, f"--subject={subject}", *forwarded]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[subject].append(json.loads(output.splitlines()[-1]))
    print(
        f"FCN-8s {arguments.what}, width {arguments.width:g}, {arguments.batch} x {arguments.size} x {arguments.size}, "
        f"{arguments.rounds} processes of {arguments.steps} each"
    )
    print(f"{'seconds':<12}{'min':>8}{'median':>8}{'max':>8}{'first':>8}{'peak GiB':>10}")
    timed = {}
    for subject, runs in results.items():
        timed[subject] = seconds = [second for run in runs for second in run["steps"]]
        first, memory = min(run["first"] for run in runs), max(run["memory"] for run in runs)
        row = (min(seconds), statistics.median(seconds), max(seconds), first)
        print(f"{subject:<12}" + "".join(f"{number:8.3f}" for number in row) + f"{memory:10.2f}")
    ratios = [summary(timed[PRODUCT]) / summary(timed[arguments.against]) for summary in (statistics.median, min)]
    print(f"{PRODUCT} / {arguments.against}: {ratios[0]:.3f} (medians), {ratios[1]:.3f} (minima)")
    if arguments.what == "step" and arguments.against == "pytorch":
        pairs = [" ".join(f"{loss:.6f}" for loss in results[subject][0]["losses"][:3]) for subject in subjects]
        print(f"losses of the first three steps: {pairs[0]} ({subjects[0]}), {pairs[1]} ({subjects[1]})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", choices=OTHERS, default="reference", help="what to compare with")
    parser.add_argument("--what", choices=("step", "inference"), default="step", help="what to time")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    parser.add_argument("--batch", type=int, default=2, help="images a step")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a process")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock counts, at least 1")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each of the two")
    parser.add_argument("--subject", choices=(PRODUCT, *OTHERS), help="time only this, in this process, and print JSON")
    arguments = parser.parse_args()
    if arguments.subject:
        print(json.dumps(measure(arguments)))
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
