"""Print the README's table: fcnlab against PyTorch's best, over networks, widths, image sizes and batches.

    python experiments/benchmarks/speed.py                 # FCN-8s, and the other two at one size
    python experiments/benchmarks/speed.py --full          # all 72 rows: hours
    python experiments/benchmarks/speed.py --quick         # four rows, in less than ten minutes
    python experiments/benchmarks/speed.py --variants      # only the ways to run PyTorch, compared anew

Each way to run PyTorch is first timed once for each width, and the fastest is remembered for this machine (a quick call
that remembers none compares those of `QUICK_VARIANTS`). The fastest and the product then take turns, row by row. A
row whose processes do not fit into memory says so.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

from fastest_way import FastestWays
from operations import forward_operations, measure_peak
from train_step import NUM_CLASSES, PRODUCT, Configuration, Timing, by_turns

WIDTHS = (1.0, 0.25)
SIZES = (256, 512)
BATCHES = (1, 2, 8)
VARIANTS = tuple(
    "+".join(word for word in words if word)
    for words in itertools.product(("eager", "compile"), ("", "channels_last"), ("", "plain_adam"))
)
QUICK_VARIANTS = {
    "step": ("eager", "eager+channels_last"),  # compiling a step takes minutes, and has not been faster so far
    "inference": ("eager", "eager+channels_last", "compile+channels_last"),
}
HEADER = (
    "| network | width | images | what | PyTorch, s | fcnlab, s (min / median / max) | ratio | GFLOP/s | of the peak "
    "| GiB, PyTorch / fcnlab |"
)


def fastest_variant(width: float, what: str, known: FastestWays, quick: bool = False, anew: bool = False) -> str:
    """Return the name of the fastest way to run PyTorch, which is timed once for each way unless it is remembered.

    Args:
        width: The factor on the channels.
        what: ``"step"`` or ``"inference"``.
        known: What was measured on this machine before; a comparison of all ways is added to it.
        quick: Whether `QUICK_VARIANTS` are enough where nothing is remembered.
        anew: Whether to compare all ways although something is remembered.
    """
    steps, warmup = (2, 1) if quick else (3, 2)
    configuration = Configuration(what=what, width=width, batch=2 if width == 1 else 8, steps=steps, warmup=warmup)
    if not anew and (remembered := known.get(str(configuration))):
        print(f"- {configuration}: {remembered} was the fastest way on this machine (--variants compares anew)")
        return remembered
    names = [name for name in VARIANTS if what == "step" or "plain_adam" not in name]  # the optimizer is not in it
    if quick:
        names = [name for name in names if name in QUICK_VARIANTS[what]]
    medians = {}
    for name in names:
        try:
            medians[name] = by_turns([f"pytorch:{name}"], configuration, 1)[f"pytorch:{name}"].median
        except RuntimeError as error:  # torch.compile needs a C++ compiler
            print(f"- {error}")
    ordered = sorted(medians, key=medians.__getitem__)
    print(f"- {configuration}: " + ", ".join(f"{name} {medians[name]:.3f} s" for name in ordered), flush=True)
    if not quick:
        known.add(str(configuration), ordered[0])
    return ordered[0]


def rows(full: bool, quick: bool) -> Iterator[Configuration]:
    """Yield the configurations that are timed, in order."""
    for width, size, batch, what, stride in itertools.product(
        WIDTHS, SIZES, BATCHES, ("step", "inference"), (8, 16, 32)
    ):
        chosen = full or (size, batch) == (256, 2) or stride == 8
        if quick:
            chosen = (stride, size) == (8, 256) and batch == (2 if width == 1 else 8)
        if chosen:
            large = width == 1 and size * size * batch > 2 * 256 * 256
            steps = 2 if large else 3 if quick else 5
            yield Configuration(what, stride, width, batch, size, steps=steps, warmup=1 if large else 2)


def row(configuration: Configuration, variant: str, peak: float) -> str:
    """Time one configuration, and return its line of the table."""
    other = f"pytorch:{variant}"
    timings = by_turns([other, PRODUCT], configuration, 2)
    own, torch = timings[PRODUCT], timings[other]
    times = 3 if configuration.what == "step" else 1
    operations = times * forward_operations(
        configuration.stride, configuration.width, configuration.batch, configuration.size, NUM_CLASSES
    )
    rate = operations / own.median / 1e9
    images = f"{configuration.batch} x {configuration.size}²"
    return (
        f"| FCN-{configuration.stride}s | {configuration.width:g} | {images} | {configuration.what} "
        f"| {torch.median:.3f} "
        f"| {spread(own)} | **{own.median / torch.median:.2f}** | {rate:.0f} | {rate / peak:.0%} "
        f"| {torch.memory:.2f} / {own.memory:.2f} |"
    )


def spread(timing: Timing) -> str:
    """Return the minimum, median and maximum as text."""
    return " / ".join(f"{value:.3f}" for value in (min(timing.seconds), timing.median, max(timing.seconds)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="every combination")
    size.add_argument("--quick", action="store_true", help="one row for each width and kind")
    parser.add_argument("--variants", action="store_true", help="only compare the ways to run PyTorch")
    parser.add_argument("--variant", help="run PyTorch this way, without comparing")
    parser.add_argument("--width", type=float, choices=WIDTHS, help="only this width")
    parser.add_argument("--what", choices=("step", "inference"), help="only this kind")
    parser.add_argument("--size", type=int, choices=SIZES, help="only this image size")
    arguments = parser.parse_args()

    peaks = {library: measure_peak(library) for library in ("torch", "mindspore")}
    print("Largest f32 matrix product: " + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in peaks.items()))
    wanted = [
        configuration
        for configuration in rows(arguments.full, arguments.quick)
        if arguments.width in (None, configuration.width)
        and arguments.what in (None, configuration.what)
        and arguments.size in (None, configuration.size)
    ]
    kinds = sorted({(configuration.width, configuration.what) for configuration in wanted}, reverse=True)
    known = FastestWays()
    variants = {
        kind: arguments.variant or fastest_variant(*kind, known, arguments.quick, arguments.variants) for kind in kinds
    }
    if arguments.variants:
        return
    print(f"\n{HEADER}\n|{'---|' * HEADER.count(' | ')}---|")
    for configuration in wanted:
        try:
            line = row(configuration, variants[configuration.width, configuration.what], max(peaks.values()))
        except RuntimeError as error:
            line = f"| {error} |"
        print(line, flush=True)


if __name__ == "__main__":
    main()
