"""What recording a training costs, and how long its steps wait for data.

    python experiments/benchmarks/overhead.py

A quarter-width FCN-8s trains 200 steps of 8 crops of 256 x 256 pixels, from PNG files that are made for it: once as
``python -m fcnlab.train`` does, with journal, MLflow store, pictures, figures, checkpoints and the packaged model, and
once as a bare loop of the same loader, step and evaluation. The two take turns in processes of their own, and each
round reverses their order. The wall time is that of the whole process, for which its user waits. The processor time
adds up both cores and the process that sends to MLflow; other processes on the machine disturb it less.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from own_process import result_of

if TYPE_CHECKING:
    from fcnlab.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

KINDS = ("bare", "recorded")


def write_images(folder: Path, count: int) -> None:
    """Write generated slices of 512 x 512 pixels as PNG files."""
    import cv2

    from fcnlab.config.schema import CellsConfig
    from fcnlab.data.cells import Cells

    cells = Cells(CellsConfig(num_train=count, image_size=512), "train")
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        sample = cells[index]
        cv2.imwrite(str(folder / "images" / f"{index:03d}.png"), sample.image)
        cv2.imwrite(str(folder / "labels" / f"{index:03d}.png"), sample.label)


def make_database(path: Path) -> None:
    """Create MLflow's tables, which takes a second, once for all runs."""
    command = ["-c", "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()", f"sqlite:///{path}"]
    subprocess.run([sys.executable, *command], check=True, stderr=subprocess.DEVNULL)


def run(kind: str, root: Path, steps: int) -> float | None:
    """Train in this process, and return the share of a step that waits for data, or None of a bare training."""
    import logging

    import fcnlab.train

    logging.disable(logging.INFO)
    config = fcnlab.compose(
        [
            *("dataset=folder", f"dataset.root={root / 'data'}", "dataset.crop_size=256", "dataset.crops_per_image=4"),
            *("dataset.cache_mib=0", f"trainer.max_steps={steps}", f"tracking.uri=sqlite:///{root / 'mlflow.db'}"),
        ]
    )
    if kind == "bare":
        train_bare(config, root)
        return None
    folder = Path(tempfile.mkdtemp(dir=root))
    fcnlab.train(config, folder)
    points = [json.loads(line).get("values", {}) for line in (folder / "journal.jsonl").read_text().splitlines()]
    waits = [values["train/data_wait_fraction"] for values in points if "train/data_wait_fraction" in values]
    return statistics.mean(waits[1:])


def train_bare(config: Config, root: Path) -> None:
    """Compute the same steps and evaluations, and keep nothing."""
    import numpy as np
    from mindspore import Tensor

    from fcnlab.core import device
    from fcnlab.experiment import assembly
    from fcnlab.training.dropout import DropoutMasks

    device.configure("cpu")
    data, network = assembly.build_data(config), assembly.build_network(config)
    trainer = assembly.build_trainer(config, network, data, root / "unused", [])
    draw_masks = DropoutMasks(network, config.seed)
    steps, step, epoch = config.trainer.max_steps, 0, 0
    while step < steps:
        for batch in trainer.loader.epoch(epoch):
            arrays = (batch.images, batch.labels, np.float32(trainer.learning_rate(step, steps)))
            masks = draw_masks(step, batch.images.shape)
            float(trainer.step(*map(Tensor, arrays), *masks).asnumpy())
            step += 1
            if step == steps:
                break
        epoch += 1
        if epoch % config.trainer.eval_every == 0 or step == steps:
            trainer.evaluator()


def measure(kind: str, root: Path, steps: int) -> dict[str, float]:
    """Train in a process of its own, and return its wall time, its processor time and its waiting."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    wait = result_of(__file__, f"--kind={kind}", f"--root={root}", f"--steps={steps}")
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "wait": wait}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--kind", choices=KINDS, help="train only this kind, in this process, and print JSON")
    parser.add_argument("--root", type=Path, help="where the images are")
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(run(arguments.kind, arguments.root, arguments.steps)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "data", 40)
        make_database(root / "mlflow.db")
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for number in range(arguments.rounds):
            for kind in KINDS if number % 2 == 0 else reversed(KINDS):
                found[kind].append(measure(kind, root, arguments.steps))
    print(f"FCN-8s, width 0.25, {arguments.steps} steps of 8 x 256 x 256 from PNG files of 512 x 512")
    for what, name in (("seconds", "wall time, s"), ("cpu", "processor time, s")):
        report(name, {kind: [result[what] for result in results] for kind, results in found.items()})
    print(f"waiting for data: {statistics.mean(result['wait'] for result in found['recorded']):.2%} of a step")


def report(name: str, values: dict[str, list[float]]) -> None:
    """Print one quantity of all rounds, and what recording costs."""
    print(f"{name:<18}     min  median   rounds")
    for kind, rounds in values.items():
        each = "".join(f"{value:8.2f}" for value in rounds)
        print(f"{kind:<18}{min(rounds):8.2f}{statistics.median(rounds):8.2f}  {each}")
    bare, recorded = values.values()
    pairs = statistics.median(after - before for before, after in zip(bare, recorded, strict=True))
    for how, cost, base in (
        ("of minima", min(recorded) - min(bare), min(bare)),
        ("median of pairs", pairs, statistics.median(bare)),
    ):
        print(f"recording, {how}: {cost:.2f} s, {cost / base:.1%}")


if __name__ == "__main__":
    main()
