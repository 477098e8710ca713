"""What recording a training costs, and how long its steps wait for data.

    python experiments/benchmarks/overhead.py

A quarter-width FCN-8s trains 200 steps of 8 crops of 256 x 256 pixels, from PNG files that are made for it: once as
``python -m fcnlab.train`` does, with journal, MLflow store, pictures, figures, checkpoints and the packaged model,
and once as a bare loop of the same loader, step and evaluation. By turns, in processes of their own, and each round in
the other order; the time is that of the training, without the start of Python and the imports that both have. MLflow
and matplotlib are imported within it, as recording alone needs them; what that takes by itself is measured, too, so
that it can be told from what is recorded. The processor time is that of both cores together, which another process on
the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

KINDS = ("bare", "recorded")
IMPORTS = "imports"


def write_images(folder: Path, count: int) -> None:
    """Generated slices of 512 x 512 pixels as PNG files."""
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
    """MLflow's tables, which are made once for all runs, in a second."""
    command = ["-c", "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).search_experiments()", f"sqlite:///{path}"]
    subprocess.run([sys.executable, *command], check=True, stderr=subprocess.DEVNULL)


def time_imports() -> dict[str, float]:
    """Import what recording needs and nothing else does, as a training does it, with nothing beside it."""
    import fcnlab.assembly
    from fcnlab.imports import import_ahead
    from fcnlab.tracking import figures

    began, cpu = time.perf_counter(), time.process_time()
    import_ahead(*fcnlab.train.tracking_modules(fcnlab.compose([])), *figures.MODULES).join()
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def run(kind: str, root: Path, steps: int) -> dict[str, float]:
    """Train in this process."""
    import logging

    import numpy as np
    from mindspore import Tensor

    import fcnlab.train
    from fcnlab import assembly, device

    logging.disable(logging.INFO)
    config = fcnlab.compose(
        [
            *("dataset=folder", f"dataset.root={root / 'data'}", "dataset.crop_size=256", "dataset.crops_per_image=4"),
            *("dataset.cache_mib=0", f"trainer.max_steps={steps}", f"tracking.uri=sqlite:///{root / 'mlflow.db'}"),
        ]
    )
    device.configure("cpu")
    if kind == "recorded":
        folder = Path(tempfile.mkdtemp(dir=root))
        began, cpu = time.perf_counter(), time.process_time()
        fcnlab.train(config, folder)
        seconds = time.perf_counter() - began
        points = [json.loads(line).get("values", {}) for line in (folder / "journal.jsonl").read_text().splitlines()]
        waits = [values["train/data_wait_fraction"] for values in points if "train/data_wait_fraction" in values]
        return {"seconds": seconds, "cpu": time.process_time() - cpu, "wait": statistics.mean(waits[1:])}
    began, cpu = time.perf_counter(), time.process_time()
    data, network = assembly.build_data(config), assembly.build_network(config)
    trainer = assembly.build_trainer(config, network, data, root / "unused", [])
    step, epoch = 0, 0
    while step < steps:
        for batch in trainer.loader.epoch(epoch):
            arrays = (batch.images, batch.labels, np.float32(trainer.learning_rate(step, steps)))
            masks = trainer.masks(step, batch.images.shape)
            float(trainer.step(*map(Tensor, arrays), *masks).asnumpy())
            step += 1
            if step == steps:
                break
        epoch += 1
        if epoch % config.trainer.eval_every == 0 or step == steps:
            trainer.evaluator()
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--kind", choices=[*KINDS, IMPORTS], help="do only this, in this process, and print JSON")
    parser.add_argument("--root", type=Path, help="where the images are")
    arguments = parser.parse_args()
    if arguments.kind:
        result = time_imports() if arguments.kind == IMPORTS else run(arguments.kind, arguments.root, arguments.steps)
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "data", 40)
        make_database(root / "mlflow.db")
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in [*KINDS, IMPORTS]}
        for number in range(arguments.rounds):
            for kind in [*(KINDS if number % 2 == 0 else reversed(KINDS)), IMPORTS]:
                command = [sys.executable, __file__, f"--kind={kind}", f"--root={root}", f"--steps={arguments.steps}"]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[kind].append(json.loads(output.splitlines()[-1]))
    print(f"FCN-8s, width 0.25, {arguments.steps} steps of 8 x 256 x 256 from PNG files of 512 x 512")
    for what, name in (("seconds", "wall time, s"), ("cpu", "processor time, s")):
        report(name, {kind: [result[what] for result in results] for kind, results in found.items()})
    print(f"waiting for data: {statistics.mean(result['wait'] for result in found['recorded']):.2%} of a step")


def report(name: str, values: dict[str, list[float]]) -> None:
    """Print the rounds of one quantity, and what recording costs."""
    print(f"{name:<18}     min  median   rounds")
    for kind, rounds in values.items():
        each = "".join(f"{value:8.2f}" for value in rounds)
        print(f"{kind:<18}{min(rounds):8.2f}{statistics.median(rounds):8.2f}  {each}")
    bare, recorded, imports = values.values()
    costs = {
        "of minima": (min(recorded) - min(bare), min(bare), min(imports)),
        "median of pairs": (
            statistics.median(after - before for before, after in zip(bare, recorded, strict=True)),
            statistics.median(bare),
            statistics.median(imports),
        ),
    }
    for how, (cost, base, importing) in costs.items():
        print(
            f"recording, {how}: {cost:.2f} s, {cost / base:.1%}; "
            f"without its imports {cost - importing:.2f} s, {(cost - importing) / base:.1%}"
        )


if __name__ == "__main__":
    main()
