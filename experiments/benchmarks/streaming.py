"""Measure whether a data set that is much larger than its cache slows a training down or fills the memory.

    python experiments/benchmarks/streaming.py

Two processes make 20,000 images of 256 x 256 pixels with labels as PNG files (crops of generated slices, 1.3 GB), and
the MindRecord files of the same. A narrow FCN-8s, whose short steps hide the least reading, trains on all of them and
on 200 of them, by turns, each in a process of its own. Data set, cache, loader and trainer are those of
``python -m fcnlab.train``, with a cache of 32 MiB: all images are 5 GiB when decoded, and the 200 do not fit either.
The script prints the seconds of a step, the share that waits for data, the resident memory during the run, and the
seconds of the start, which lists, checks and fingerprints every file, for the first time and again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from own_process import result_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SIZE = 256
SLICES = 8
CACHE_MIB = 32
BATCH = 8
QUARTERS = 4


def write_images(root: Path, numbers: range) -> None:
    """Write crops of a few generated slices, half of them mirrored, with their labels as PNG files."""
    import cv2
    import numpy as np

    from fcnlab.data.cells import generate

    cv2.setNumThreads(1)
    slices = [generate(3 * SIZE, np.random.default_rng(index)) for index in range(SLICES)]
    for number in numbers:
        rng = np.random.default_rng(number)
        top, left = rng.integers(0, 2 * SIZE, 2)
        for kind, array in zip(("images", "labels"), slices[number % SLICES], strict=True):
            crop = array[top : top + SIZE, left : left + SIZE, ...]
            crop = crop[..., 0] if crop.ndim == 3 else crop
            cv2.imwrite(str(root / kind / f"{number:06d}.png"), crop[:, ::-1] if number % 2 else crop)


def make(root: Path, count: int) -> None:
    """Make the data set in two processes."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    halves = [range(0, count // 2), range(count // 2, count)]
    # Not forked: OpenCV's threads would be missing in the children.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(partial(write_images, root), halves)
    validation = [f"{number:06d}" for number in range(0, count, count // 8)]
    (root / "val.txt").write_text("\n".join(validation))


def write_records(root: Path) -> float:
    """Write the MindRecord files of both splits, and return the seconds that it took."""
    from fcnlab.config.schema import FolderConfig
    from fcnlab.data.image_folder import Folder
    from fcnlab.preparation import mindrecord_shards

    began = time.perf_counter()
    for split in ("train", "val"):
        samples = Folder(FolderConfig(root=str(root), val_list=str(root / "val.txt")), split)
        mindrecord_shards.write_split(root, split, samples)
    return time.perf_counter() - began


def run(root: Path, stored: str, steps: int, width: float) -> dict[str, object]:
    """Start and train in this process."""
    import psutil

    import fcnlab
    from fcnlab.core import device
    from fcnlab.experiment import assembly
    from fcnlab.training.callbacks import Callback

    memory = psutil.Process().memory_info

    class Watch(Callback):
        def __init__(self) -> None:
            self.seconds, self.waits, self.mib = [], [], []

        def on_step(self, record: object) -> None:
            self.seconds.append(BATCH / record.images_per_second)
            self.waits.append(record.data_wait_fraction * self.seconds[-1])
            self.mib.append(memory().rss / 2**20)

    config = fcnlab.compose(
        [
            *("dataset=folder", f"dataset.root={root}", f"dataset.val_list={root / 'val.txt'}", "arch=fcn8s"),
            *(f"dataset.crop_size={SIZE}", f"dataset.cache_mib={CACHE_MIB}", f"dataset.records={stored == 'records'}"),
            *(f"arch.width={width}", f"trainer.max_steps={steps}", f"trainer.batch_size={BATCH}", "tracking=none"),
            *("trainer.eval_every=1000000", "trainer.checkpoint_minutes=null", "trainer.ckpt=false"),
        ]
    )
    device.configure("cpu")
    import cv2  # noqa: F401 - imports are not timed
    import PIL.Image  # noqa: F401

    began = time.perf_counter()
    data = assembly.build_data(config)
    assembly.describe_inputs(config, data)
    started = time.perf_counter() - began
    before = memory().rss / 2**20
    watch = Watch()
    network = assembly.build_network(config)
    with tempfile.TemporaryDirectory() as folder:
        assembly.build_trainer(config, network, data, Path(folder), [watch]).fit()
    settled = watch.seconds[BATCH:]  # the first steps compile
    quarters = [watch.mib[max(0, steps * part // QUARTERS - 1)] for part in range(1, QUARTERS + 1)]
    return {
        "images": len(data.train),
        "start": started,
        "step": statistics.median(settled),
        "best": min(settled),  # least disturbed by other processes on the machine
        "wait": sum(watch.waits[BATCH:]) / sum(settled),
        "mib": [before, watch.mib[steps // 10], *quarters],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20000, help="images of the large data set")
    parser.add_argument("--few", type=int, default=200, help="images of the small data set")
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each kind")
    parser.add_argument("--width", type=float, default=0.0625, help="factor on the network's channels")
    parser.add_argument("--kind", choices=("files", "records"), help="train from these only, here, and print JSON")
    parser.add_argument("--root", type=Path, help="where the images are")
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(run(arguments.root, arguments.kind, arguments.steps, arguments.width)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        many, few = Path(temporary, "many"), Path(temporary, "few")
        make(many, arguments.images)
        make(few, arguments.few)
        size = sum(path.stat().st_size for path in many.rglob("*.png"))
        print(f"{arguments.images} images and labels, {size / 2**20:.0f} MiB, {time.perf_counter() - began:.0f} s")
        print(f"as MindRecord: {write_records(many):.1f} s", flush=True)
        time.sleep(3)  # files that have just been written are not remembered as good
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(temporary, "cache"))}
        print(f"FCN-8s, width {arguments.width:g}, {arguments.steps} steps of {BATCH} x {SIZE} x {SIZE}")
        heading = " " * 28 + "start    step: median, min   waiting   MiB: before, after a tenth and each quarter"
        print(heading)
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for name, root, kind in (("few", few, "files"), ("many", many, "files"), ("records", many, "records")):
                flags = [f"--kind={kind}", f"--root={root}", f"--width={arguments.width}", f"--steps={arguments.steps}"]
                result = result_of(__file__, *flags, environment=environment)
                found.setdefault(name, []).append(result)
                memory = " ".join(f"{value:6.0f}" for value in result["mib"])
                step = f"{result['step']:7.4f} {result['best']:7.4f} s"
                print(
                    f"{result['images']:>6} images, {kind:<8}{result['start']:8.2f} s {step} "
                    f"{result['wait']:8.2%}   {memory}",
                    flush=True,
                )
    for name, what in (("many", "files"), ("records", "MindRecord")):
        median, least = (
            summary(large[key] for large in found[name]) / summary(small[key] for small in found["few"])
            for key, summary in (("step", statistics.median), ("best", min))
        )
        print(
            f"a step on {arguments.images} images, {what}, to one on {arguments.few}: {median:.3f} (medians), "
            f"{least:.3f} (minima)"
        )


if __name__ == "__main__":
    main()
