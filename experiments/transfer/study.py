"""Train FCNs on CamVid from published and from random weights, measure them, and draw what came of it.

    python -m experiments.transfer.study CamVid vgg16_imagenet.onnx results

The first argument is the folder of CamVid in SegNet's layout, the second a file of VGG-16's weights, the third a folder
for everything that is written. A study that was interrupted goes on when it is called again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import fcnlab
from experiments.trainings import evaluate, peak_memory, run, smoothed_losses, tested, write_table
from fcnlab.recording import journal

STARTS = {
    "ImageNet": [],
    "random": ["arch.norm=batch", "optimizer.lr=1e-3"],  # as this package trains by default
}
ARCHITECTURES = ("fcn32s", "fcn16s", "fcn8s")
TRAININGS = [
    *((start, "fcn8s", 0) for start in STARTS),
    *(("ImageNet", architecture, 0) for architecture in ("fcn32s", "fcn16s")),
    *((start, "fcn8s", 1) for start in STARTS),
    *(("random", architecture, 0) for architecture in ("fcn32s", "fcn16s")),
]
"""(start, architecture, seed) triples, in the order in which they are trained."""

EXAMPLE = "0016E5_07961.png"
"""The validation image whose label maps are drawn."""

SMOOTHING = 5
"""The number of steps of the running mean over the loss."""


def main(root: str, weights: str, output: str) -> None:
    """Do what is missing of the study, and write the table and the figure anew."""
    folder = Path(output)
    for training in TRAININGS:
        train(training, root, weights, folder / name(*training))
    for training in TRAININGS:
        evaluate(folder / name(*training), "dataset=camvid", f"dataset.root={root}", "dataset.val_set=test")
    write_results(folder)
    draw_curves(folder)
    draw_maps(root, folder)


def name(start: str, architecture: str, seed: int) -> str:
    """Return the name of a training's folder."""
    return f"{architecture}-{start.lower()}-seed{seed}"


def finished(folder: Path) -> list[tuple[str, str, int]]:
    """Return the trainings that are finished, by their start, then from coarse to fine, then by their seed."""
    folders = {training: folder / name(*training) for training in TRAININGS}
    found = [training for training, own in folders.items() if own.is_dir() and journal.is_finished(own)]
    return sorted(found, key=lambda one: (one[0], ARCHITECTURES.index(one[1]), one[2]))


def train(training: tuple[str, str, int], root: str, weights: str, folder: Path) -> None:
    """Train, or continue an interrupted training, unless it is finished."""
    start, architecture, seed = training
    if training in finished(folder.parent):
        return
    words = [f"arch={architecture}", f"seed={seed}", f"dataset.root={root}", f"hydra.run.dir={folder}", "resume=auto"]
    if start == "ImageNet":
        words.append(f"init_from={weights}")
    run("train", "experiment=transfer", *STARTS[start], *words)


def write_results(folder: Path) -> None:
    """Write ``table.md``: a row for each training that is finished, with what was measured of it."""
    rows = []
    for training in finished(folder):
        start, architecture, seed = training
        own = folder / name(*training)
        history = journal.history(own / journal.FILE)
        values = {"network": architecture, "start": start, "seed": str(seed)}
        values["val mean IoU"] = f"{history['val/mean_iou'][-1][1]:.3f}"
        metrics = tested(own)
        for metric, title in (("mean_iou", "test mean IoU"), ("pixel_accuracy", "test pixel accuracy")):
            values[title] = f"{metrics[metric]:.3f}" if metrics else ""
        for key, points in history.items():
            if key.startswith("val/iou/"):
                values[key.removeprefix("val/iou/")] = f"{points[-1][1]:.2f}"
        values["GiB"] = f"{peak_memory(own):.1f}"
        rows.append(values)
    write_table(folder / "table.md", rows)


def draw_curves(folder: Path) -> None:
    """Draw the loss of every finished training and the IoU of every class on the validation images."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(2, 3))
    trainings = finished(folder)
    for index, training in enumerate(trainings):
        start, architecture, seed = training
        history = journal.history(folder / name(*training) / journal.FILE)
        style = {"color": f"C{ARCHITECTURES.index(architecture)}"}
        style["linestyle"] = "-" if start == "ImageNet" else ":"
        label = f"{architecture}, {start}" if seed == 0 else None
        left.plot(*smoothed_losses(folder / name(*training), SMOOTHING), label=label, **style)
        classes = {key: points[-1][1] for key, points in history.items() if key.startswith("val/iou/")}
        places = np.arange(len(classes)) + (index - len(trainings) / 2) / (len(trainings) + 2)
        fill = style["color"] if start == "ImageNet" else "none"
        width = 1 / (len(trainings) + 2)
        right.bar(places, list(classes.values()), width, color=fill, edgecolor=style["color"], align="edge")
    names = [key.removeprefix("val/iou/") for key in classes]
    right.set_xticks(np.arange(len(names)), names, rotation=45, ha="right")
    left.set(xlabel="step", ylabel=f"train/loss, mean of {SMOOTHING} steps")
    right.set(ylabel="IoU on the validation images")
    left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3, axis="y")
    figure.savefig(folder / "curves.png", dpi=110)


def draw_maps(root: str, folder: Path) -> None:
    """Draw the label of a validation image beside what the networks of the first seed make of the image."""
    image = cv2.cvtColor(cv2.imread(f"{root}/val/{EXAMPLE}"), cv2.COLOR_BGR2RGB)
    label = cv2.imread(f"{root}/valannot/{EXAMPLE}", cv2.IMREAD_UNCHANGED)
    maps = {"label": label}
    for start, architecture, seed in finished(folder):
        if seed == 0:
            network = fcnlab.load(folder / name(start, architecture, seed))
            maps[f"{architecture}, {start}"] = network.predict(image)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(network.palette)] = network.palette
    figure, places = plt.subplots(2, -(-len(maps) // 2), figsize=(11, 5), layout="constrained")
    for axes in places.flat:
        axes.axis("off")
    for axes, (title, labels) in zip(places.flat, maps.items(), strict=False):
        axes.imshow(colours[labels])
        axes.set_title(title)
    figure.savefig(folder / "maps.png", dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
