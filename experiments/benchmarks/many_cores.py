"""Time a training step on 1, 2, 4, ... processors of this machine, here and in PyTorch, by turns.

    python experiments/benchmarks/many_cores.py
    python experiments/benchmarks/many_cores.py --width 1 --batch 2 --against pytorch:eager
    python experiments/benchmarks/many_cores.py --what inference --processors 1 4 16
    python experiments/benchmarks/many_cores.py --amp bf16

Each time is that of a process that may use so many processors alone (``sched_setaffinity``), the physical cores first.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from operations import forward_operations
from train_step import NUM_CLASSES, PRODUCT, Configuration, by_turns


def cores_first() -> list[int]:
    """Return the processors of this process, with one of each core before the second of any."""
    seen: dict[str, int] = {}
    order = []
    for processor in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        core = siblings.read_text() if siblings.exists() else str(processor)
        seen[core] = seen.get(core, 0) + 1
        order.append((seen[core], processor))
    return [processor for _, processor in sorted(order)]


def doubled(limit: int) -> list[int]:
    """Return 1, 2, 4, ... up to the limit, and the limit."""
    numbers = [1]
    while numbers[-1] * 2 < limit:
        numbers.append(numbers[-1] * 2)
    return [*numbers, limit] if limit > 1 else numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", default="pytorch:eager+channels_last", help="as for train_step.py")
    parser.add_argument("--what", choices=("step", "inference"), default="step", help="what to time")
    parser.add_argument("--width", type=float, default=0.25, help="factor on the channels")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--size", type=int, default=256, help="side of an image in pixels")
    parser.add_argument("--steps", type=int, default=7, help="timed steps a process")
    parser.add_argument("--rounds", type=int, default=1, help="processes for each of the two")
    parser.add_argument("--amp", choices=("O0", "bf16"), default="O0", help="precision of a step's products")
    parser.add_argument(
        "--processors", type=int, nargs="+", help="numbers of processors; by default 1, 2, 4, ... and all"
    )
    arguments = parser.parse_args()
    if arguments.what == "inference" and arguments.amp != "O0":
        parser.error("--amp: inference is float32; leave it out, or time --what step")
    configuration = Configuration(
        arguments.what, 8, arguments.width, arguments.batch, arguments.size, arguments.steps, 2, arguments.amp
    )
    operations = forward_operations(
        configuration.stride, configuration.width, configuration.batch, configuration.size, NUM_CLASSES
    )
    operations *= 3 if configuration.what == "step" else 1
    order = cores_first()
    print(f"{configuration}, medians of {arguments.rounds * arguments.steps}, against {arguments.against}")
    print("| processors | PyTorch, s | fcnlab, s | ratio | GFLOP/s | PyTorch's speedup | fcnlab's speedup |")
    print("|---|---|---|---|---|---|---|")
    first: tuple[float, float] | None = None
    for count in arguments.processors or doubled(len(order)):
        os.sched_setaffinity(0, order[:count])  # processes inherit it
        timings = by_turns([arguments.against, PRODUCT], configuration, arguments.rounds)
        other, own = timings[arguments.against].median, timings[PRODUCT].median
        first = first or (other, own)
        print(
            f"| {count} | {other:.3f} | {own:.3f} | **{own / other:.2f}** | {operations / own / 1e9:.0f} "
            f"| {first[0] / other:.1f} | {first[1] / own:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
