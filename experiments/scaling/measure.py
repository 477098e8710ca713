"""Time two workers with one core each against one process with two cores, by turns, and what their exchange costs.

    python experiments/scaling/measure.py --rounds 3 --width 0.25

It needs two free cores, and prints a table and what the exchange of that many gradients took. Each training is one of
generated images, without MLflow, in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 24
SKIPPED = 4
"""The first steps, which compile or warm up."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)  # a worker that measures
    arguments = parser.parse_args()
    if arguments.exchange:
        exchange(arguments.width)
        return
    words = [
        *("arch=fcn8s", f"arch.width={arguments.width}", f"trainer.batch_size={arguments.batch}"),
        *(f"dataset.crop_size={arguments.crop}", f"trainer.max_steps={STEPS}", "trainer.eval_every=1000"),
        *("tracking=none", "trainer.checkpoint_minutes=null"),
    ]
    found: dict[str, list[float]] = {"one process, two threads": [], "one process, one thread": [], "two workers": []}
    for number in range(arguments.rounds):
        for way, times in found.items():
            with tempfile.TemporaryDirectory() as folder:
                train(way, [*words, f"hydra.run.dir={folder}/run"], Path(folder), 8400 + number)
                times.append(step_seconds(Path(folder) / "run", arguments.batch))
                print(f"round {number + 1}: {way}: {1000 * times[-1]:.0f} ms", flush=True)
    print("\n| way | median step | all |\n|---|--:|---|")
    for way, times in found.items():
        print(f"| {way} | {1000 * statistics.median(times):.0f} ms | {', '.join(f'{1000 * t:.0f}' for t in times)} |")
    with tempfile.TemporaryDirectory() as folder:
        command = [__file__, "--exchange", "--width", str(arguments.width)]
        print(msrun(command, Path(folder), 8500).strip().splitlines()[-1])


def train(way: str, words: list[str], folder: Path, port: int) -> None:
    """Train with one process or two workers."""
    if way == "two workers":
        msrun(["-m", "fcnlab.train", *words, "trainer.parallel=data"], folder, port)
    else:
        threads = {"OMP_NUM_THREADS": "1"} if way.endswith("one thread") else {}
        core = ["taskset", "-c", "0"] if threads else []
        command = [*core, sys.executable, "-m", "fcnlab.train", *words]
        subprocess.run(command, check=True, env={**os.environ, **threads}, stdout=subprocess.DEVNULL)


def msrun(command: list[str], folder: Path, port: int) -> str:
    """Run a command in two workers, and return what worker 0 has printed."""
    launcher = [Path(sys.executable).with_name("msrun"), "--worker_num=2", "--local_worker_num=2", "--join=True"]
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = [f"--master_port={port}", f"--log_dir={folder}/logs"]
    run = [*map(str, launcher), *options, "python", *command]
    subprocess.run(run, check=True, env={**os.environ, "PATH": search}, stdout=subprocess.DEVNULL)
    return (folder / "logs" / "worker_0.log").read_text()


def step_seconds(run: Path, batch: int) -> float:
    """Return the median time of a step from the journal of a training."""
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    rates = [event["values"]["train/images_per_second"] for event in events if is_step(event)]
    return statistics.median(batch / rate for rate in rates[SKIPPED:])


def is_step(event: dict) -> bool:
    """Return whether an event of a journal is a training step."""
    return event["kind"] == "metrics" and "train/images_per_second" in event["values"]


def exchange(width: float) -> None:
    """Print how long the gradients of FCN-8s take to be added up over all workers; called in each of them."""
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor

    from fcnlab.core import device, launch, workers
    from fcnlab.models import build_model
    from fcnlab.training.parallel import Sum

    started = launch.current()
    device.configure("cpu")
    if started.role == "scheduler":
        workers.serve()
        return
    group = workers.connect(started, 120)
    shapes = [parameter.shape for parameter in build_model("fcn8s", 2, width=width).trainable_params()]
    gradients = tuple(Tensor(np.ones(shape, np.float32)) for shape in shapes)
    total, times, busy = Sum(shapes), [], []
    for _ in range(8):
        group.exchange()
        began, before = time.perf_counter(), time.process_time()
        for tensor in total(gradients)[-1:]:
            tensor.asnumpy()
        times.append(time.perf_counter() - began)
        busy.append(time.process_time() - before)
    asked = time.perf_counter()
    for _ in range(20):
        group.exchange()
    waited = (time.perf_counter() - asked) / 20
    if group.is_first:
        size = 4 * sum(int(np.prod(shape)) for shape in shapes)
        median = statistics.median(times[2:])
        print(
            f"{size / 1e6:.1f} MB of gradients in {1000 * median:.0f} ms ({size / median / 1e6:.0f} MB/s), of which a "
            f"worker computes {1000 * statistics.median(busy[2:]):.0f} ms, with "
            f"MindSpore {ms.__version__}; a round of messages between the workers in {1000 * waited:.2f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
