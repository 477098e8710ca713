"""The tables and figures of the stride study, from what its trainings have left."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

import fcnlab
from experiments.trainings import peak_memory, smoothed_losses, tested, write_table
from fcnlab.comparison import Difference, compare
from fcnlab.comparison.significance import paired_difference
from fcnlab.comparison.trials import Trial, read_folder
from fcnlab.data.isbi2012 import isbi2012
from fcnlab.drawing.palette import class_palette
from fcnlab.sweeps import result

COUNTED = {
    "val/mean_iou": "mean IoU",
    "val/iou/membrane": "membrane IoU",
    "val/pixel_accuracy": "pixel accuracy",
    "val/mean_accuracy": "mean accuracy",
    "val/frequency_weighted_iou": "frequency-weighted IoU",
}
"""The metrics that follow from the counts of each slice, so that their intervals cover the slices' chance, too."""

OTHERS = {"boundary_f1": "boundary F1", "rand_score": "Rand score", "information_score": "information score"}
"""The metrics of `evaluate` that no sum of counts gives; their intervals cover the chance of the seeds alone."""

CLASSES = ("membrane", "cell")

BASELINE = "fcn8s"
"""The network that the others are compared with, which was fixed before anything was trained: the paper's finest."""

DRAWN = 2
"""Which of the test slices is drawn: number 26."""

PART = slice(128, 384)
"""The rows and the columns of the slice that are drawn."""

SMOOTHING = 12
"""The number of steps of the running mean over the loss."""

Trainings = Mapping[str, Mapping[str, Path]]
"""The folder of each finished training, by its network, from coarse to fine, and by its seed."""


def write(folder: Path, root: Path) -> None:
    """Write everything that the finished trainings allow.

    Args:
        folder: The folder of the study.
        root: The folder of the slices.
    """
    trainings = finished(folder / "quarter")
    if BASELINE not in trainings:
        return
    differences = measure_differences(trainings)
    write_results(trainings, folder / "results.md")
    write_differences(trainings, differences, folder / "differences.md")
    draw_losses(trainings, folder / "curves.png")
    draw_summary(trainings, differences, root, folder / "strides.png")
    write_full_width(folder, folder / "full_width.md")


def finished(sweep: Path) -> dict[str, dict[str, Path]]:
    """Return the trainings of a sweep that are finished and measured."""
    found: dict[str, dict[str, Path]] = {}
    for trial in result.read_all(sweep):
        folder = Path(trial.folder)
        if trial.succeeded and tested(folder):
            params = read_folder(folder).params
            found.setdefault(params["arch.name"], {})[params["seed"]] = folder
    return dict(sorted(found.items(), key=lambda item: -stride(item[0])))


def stride(network: str) -> int:
    """Return the stride of a network, such as 8 of ``fcn8s``."""
    return int(network.strip("fcns"))


def title(network: str) -> str:
    """Return the paper's name of a network, such as FCN-8s."""
    return f"FCN-{stride(network)}s"


def scores(trainings: Trainings, metric: str) -> dict[str, dict[str, float]]:
    """Return a metric of every training, by network and seed."""
    name = metric.removeprefix("val/")
    return {network: {seed: tested(own)[name] for seed, own in seeds.items()} for network, seeds in trainings.items()}


def measure_differences(trainings: Trainings) -> dict[str, dict[str, Difference]]:
    """Return the difference of each network from the baseline, by metric and network."""
    trials: list[Trial] = [read_folder(own) for seeds in trainings.values() for own in seeds.values()]
    found = {}
    for metric in COUNTED:
        compared = compare(trials, metric, BASELINE)
        found[metric] = {label: one for label, one in compared.differences.items() if label != BASELINE}
    for metric in OTHERS:
        values = scores(trainings, metric)
        found[metric] = {
            network: paired_difference(values[network], values[BASELINE]) for network in values if network != BASELINE
        }
    return found


def write_results(trainings: Trainings, path: Path) -> None:
    """Write the mean and the standard deviation of every metric, and what a training cost."""
    rows = []
    for network, seeds in trainings.items():
        row = {"network": title(network), "seeds": str(len(seeds))}
        for metric, name in {**COUNTED, **OTHERS}.items():
            row[name] = _mean_and_spread(list(scores(trainings, metric)[network].values()))
        trials = [read_folder(own) for own in seeds.values()]
        row["parameters"] = f"{trials[0].parameters:,}"
        row["minutes"] = f"{min(trial.seconds for trial in trials) / 60:.1f}"
        row["images/s"] = f"{max(trial.images_per_second for trial in trials):.1f}"
        row["GiB"] = f"{max(peak_memory(own) for own in seeds.values()):.1f}"
        rows.append(row)
    write_table(path, rows)


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def write_differences(trainings: Trainings, differences: Mapping[str, Mapping[str, Difference]], path: Path) -> None:
    """Write by how much each network differs from the baseline, with the 95 % interval."""
    rows = []
    for metric, name in {**COUNTED, **OTHERS}.items():
        row = {"metric": name}
        for network in trainings:
            if network == BASELINE:
                continue
            found = differences[metric][network]
            interval = "" if np.isnan(found.low) else f" ({found.low:+.3f} to {found.high:+.3f})"
            row[title(network)] = f"{found.mean:+.3f}{interval}"
        row["covers the chance of"] = "seeds and slices" if metric in COUNTED else "seeds"
        rows.append(row)
    write_table(path, rows)


def write_full_width(folder: Path, path: Path) -> None:
    """Write what the networks of the paper's width reached from ImageNet's weights and from random ones."""
    rows = []
    for start in ("ImageNet", "random"):
        for network, seeds in finished(folder / f"full_{start.lower()}").items():
            for own in seeds.values():
                row = {"network": title(network), "start": start}
                row |= {name: f"{tested(own)[metric.removeprefix('val/')]:.3f}" for metric, name in COUNTED.items()}
                row |= {name: f"{tested(own)[metric]:.3f}" for metric, name in OTHERS.items()}
                row["minutes"] = f"{read_folder(own).seconds / 60:.1f}"
                row["GiB"] = f"{peak_memory(own):.1f}"
                rows.append(row)
    if rows:
        write_table(path, rows)


def draw_losses(trainings: Trainings, path: Path) -> None:
    """Draw the loss of every training."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for index, (network, seeds) in enumerate(trainings.items()):
        for number, own in enumerate(seeds.values()):
            label = title(network) if number == 0 else None
            axes.plot(*smoothed_losses(own, SMOOTHING), color=f"C{index}", label=label, alpha=1 - 0.3 * number)
    axes.set(xlabel="step", ylabel=f"train/loss, mean of {SMOOTHING} steps")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_summary(
    trainings: Trainings, differences: Mapping[str, Mapping[str, Difference]], root: Path, path: Path
) -> None:
    """Draw a slice with what each network makes of it, the metrics by stride, and the differences from the baseline."""
    pictures = _pictures(trainings, root)
    figure = plt.figure(figsize=(13, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.35))
    panels = above.subplots(1, len(pictures))
    for axes, (name, picture) in zip(panels, pictures.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(name, fontsize=11)
        axes.axis("off")
    colours = class_palette(CLASSES) / 255
    keys = [
        Patch(facecolor=colour, edgecolor="grey", label=name) for colour, name in zip(colours, CLASSES, strict=True)
    ]
    panels[0].legend(handles=keys, loc="lower left", fontsize=8)
    left, right = below.subplots(1, 2)
    _draw_metrics(trainings, left)
    _draw_differences(trainings, differences, right)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _pictures(trainings: Trainings, root: Path) -> dict[str, np.ndarray]:
    """Return a part of a test slice, its label, and the label maps of the first seed of each network, by title."""
    sample = isbi2012(fcnlab.compose(["dataset=isbi2012", f"dataset.root={root}"]).dataset, "val")[DRAWN]
    colours = class_palette(CLASSES)
    pictures = {f"slice {sample.name}": sample.image, "label": colours[sample.label]}
    for network, seeds in trainings.items():
        pictures[title(network)] = colours[fcnlab.load(min(seeds.items())[1]).predict(sample.image)]
    return {name: picture[PART, PART] for name, picture in pictures.items()}


def _draw_metrics(trainings: Trainings, axes: Axes) -> None:
    places = np.arange(len(trainings))
    for index, metric in enumerate(("val/mean_iou", "val/iou/membrane", "rand_score", "information_score")):
        values = scores(trainings, metric)
        name = {**COUNTED, **OTHERS}[metric]
        axes.plot(
            places, [statistics.fmean(seeds.values()) for seeds in values.values()], color=f"C{index}", label=name
        )
        for place, seeds in zip(places, values.values(), strict=True):
            axes.plot([place] * len(seeds), list(seeds.values()), "o", color=f"C{index}", markersize=4)
    axes.set_xticks(places, [title(network) for network in trainings])
    axes.set(ylim=(0, 1), ylabel="on slices 24 to 29")
    axes.set_title("each training, and the mean over seeds", fontsize=10)
    axes.legend(fontsize=9, loc="lower right")
    axes.grid(alpha=0.3)


def _draw_differences(trainings: Trainings, differences: Mapping[str, Mapping[str, Difference]], axes: Axes) -> None:
    networks = [network for network in trainings if network != BASELINE]
    for index, metric in enumerate(("val/mean_iou", "val/iou/membrane")):
        for place, network in enumerate(networks):
            found = differences[metric][network]
            ends = None if np.isnan(found.low) else [[found.mean - found.low], [found.high - found.mean]]
            look = {"fmt": "o", "color": f"C{index}", "capsize": 4, "label": COUNTED[metric] if place == 0 else None}
            axes.errorbar(place + 0.16 * index - 0.08, found.mean, yerr=ends, **look)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_xticks(range(len(networks)), [title(network) for network in networks])
    axes.set(ylabel=f"difference from {title(BASELINE)}")
    axes.set_title("with 95 % intervals that cover the chance of the seeds and of the slices", fontsize=10)
    axes.legend(fontsize=9)
    axes.grid(alpha=0.3)
