"""Measure how much memory a training step takes, and say how large a batch fits into 4, 8 and 16 GiB.

Each row is measured in a process of its own, which trains a few steps on noise::

    python experiments/benchmarks/memory.py                      # width 1, as in README.md
    python experiments/benchmarks/memory.py --width 0.25 --sides 512 1024

The peak of the resident memory grows in a straight line with the pixels of a batch, once it exceeds what compiling the
graph takes. So each setting is measured at two or more sides of an image, and the largest batch for a memory follows
from the line through the last two. The memory of the data set's images is not part of it. How many batches are
accumulated makes no difference, if there is more than one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from own_process import result_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

GIB = 2**30
LIMITS = (4, 8, 16)
SIDES = (512, 768)


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    with open("/proc/self/status") as status:
        [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def measure(width: float, side: int, batch: int, accumulate: int, recompute: str, steps: int) -> dict[str, Any]:
    """Train some steps on noise in this process, and return the peaks of its memory and the time of the last step."""
    import mindspore as ms
    import numpy as np

    import fcnlab
    from fcnlab.data.loader import Batch
    from fcnlab.experiment.assembly import build_network, build_step
    from fcnlab.training.dropout import DropoutMasks
    from fcnlab.training.step import TrainStep
    from fcnlab.training.updates import AccumulatedUpdates, SingleUpdates

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    config = fcnlab.compose(
        [f"arch.width={width}", f"trainer.accumulate={accumulate}", f"trainer.recompute={recompute}"]
    )
    network = build_network(config)
    step = build_step(config, network)
    masks = DropoutMasks(network, 0)
    if isinstance(step, TrainStep):
        updates = SingleUpdates(step, masks, 255, guarded=False)
    else:
        updates = AccumulatedUpdates(step, masks, 255)
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch, 3, side, side), dtype=np.float32)
    labels = generator.integers(0, 2, (batch, side, side)).astype(np.int32)
    losses = []
    for number in range(steps):
        began = time.perf_counter()
        for _ in range(accumulate):
            updates.add(Batch(images, labels, ("noise",)), number)
        losses.append(updates.finish(1e-4).loss)
        seconds = time.perf_counter() - began
    return {"memory": peak_memory(), "seconds": seconds, "losses": losses}


def report(width: float, sides: list[int], steps: int, settings: list[tuple[int, str]]) -> None:
    """Measure all settings, one after the other, and print two tables."""
    flags = ("--width", str(width), "--steps", str(steps))
    rows: dict[tuple[int, str], list[tuple[int, float]]] = {}
    print("| accumulate | recompute | batch | peak memory, GiB | time of the last step, s |")
    print("|---|---|---|---|---|")
    for accumulate, recompute in settings:
        for side in sides:
            found = result_of(__file__, "--one", str(side), str(accumulate), recompute, *flags)
            rows.setdefault((accumulate, recompute), []).append((side * side, found["memory"] / GIB))
            print(
                f"| {accumulate} | {recompute} | 1 x {side} x {side} | {found['memory'] / GIB:.2f} "
                f"| {found['seconds']:.1f} |",
                flush=True,
            )
    print("\n| accumulate | recompute | GiB without images | GiB for a megapixel", end="")
    print("".join(f" | pixels in {limit} GiB" for limit in LIMITS), "|")
    print("|---|---|---|---" + "|---" * len(LIMITS) + "|")
    for (accumulate, recompute), points in rows.items():
        (few, low), (many, high) = points[-2], points[-1]
        slope = (high - low) / (many - few)
        base = low - slope * few
        fits = [_batches((limit - base) / slope) for limit in LIMITS]
        print(f"| {accumulate} | {recompute} | {base:.2f} | {slope * 1e6:.2f} | {' | '.join(fits)} |")


def _batches(pixels: float) -> str:
    """Return which batches of squares have at most a number of pixels."""
    if pixels < 256 * 256:
        return "less than 1 x 256 x 256"
    side = int(pixels**0.5) // 32 * 32
    several = [f"{int(pixels // length**2)} x {length} x {length}" for length in (512, 256) if pixels >= 2 * length**2]
    return ", ".join([f"1 x {side} x {side}", *several])


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES), help="two or more sides of an image")
    parser.add_argument("--steps", type=int, default=2, help="the steps of each process")
    parser.add_argument("--recompute", nargs="+", default=["none", "blocks"], choices=["none", "blocks"])
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "ACCUMULATE", "RECOMPUTE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        side, accumulate, recompute = chosen.one
        print(json.dumps(measure(chosen.width, int(side), 1, int(accumulate), recompute, chosen.steps)))
        return
    settings = [(accumulate, recompute) for recompute in chosen.recompute for accumulate in chosen.accumulate]
    report(chosen.width, chosen.sides, chosen.steps, settings)


if __name__ == "__main__":
    main()
