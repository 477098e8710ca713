"""Draw a slice, its label and what FCN-32s, 16s and 8s make of it, side by side, after short trainings.

    python experiments/isbi2012/pictures.py <folder of the slices> results experiments/isbi2012/strides.png

The arguments are the folder of ISBI 2012's slices (`dataset.root`), a folder for the trainings, and
the picture. A call that was interrupted goes on when it is repeated. `make pictures SLICES=<folder>` does the same.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import fcnlab
from fcnlab.drawing.lettering import legend, line
from fcnlab.drawing.palette import class_palette
from fcnlab.experiment import assembly
from fcnlab.metrics.confusion import ConfusionMatrix

ARCHITECTURES = {"fcn32s": "FCN-32s", "fcn16s": "FCN-16s", "fcn8s": "FCN-8s"}
RECIPE = ["experiment=isbi2012", "arch.width=0.0625", "dataset.crop_size=128", "dataset.crops_per_image=8"]
RECIPE += ["trainer.epochs=6", "trainer.eval_every=6", "trainer.batch_size=4", "tracking=none"]
"""A small part of the computation of the study in this folder, so that the three take some minutes."""

SLICE = 2
"""Which of the validation slices is drawn."""

PART = slice(128, 384)
"""The rows and the columns of the slice that are drawn."""


def main(root: str, output: str, picture: str) -> None:
    """Train what is missing, and draw the picture anew."""
    words = [*RECIPE, f"dataset.root={root}"]
    for name in ARCHITECTURES:
        folder = Path(output, name)
        command = [sys.executable, "-m", "fcnlab.train", *words, f"arch={name}", f"hydra.run.dir={folder}"]
        subprocess.run([*command, "resume=auto"], check=True)
    sample = assembly.build_data(fcnlab.compose(words)).val[SLICE]
    panels = {"image": np.repeat(sample.image, 3 // sample.image.shape[2], axis=2)}
    names = fcnlab.compose(words).dataset.class_names
    colours = class_palette(names)
    panels["label"] = colours[sample.label]
    for name, title in ARCHITECTURES.items():
        labels = fcnlab.load(Path(output, name)).predict(sample.image)
        found = ConfusionMatrix(len(names), 255)
        found.update(sample.label, labels)
        panels[f"{title}, mean IoU {found.mean_iou:.2f}"] = colours[labels]
    cells = [np.vstack([line(title, 256), panel[PART, PART]]) for title, panel in panels.items()]
    key = legend([(tuple(colour.tolist()), name) for colour, name in zip(colours, names, strict=True)])
    rows, gap = len(cells[0]), 6
    drawn = np.full((rows, len(cells) * (256 + gap) + key.shape[1], 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        left = number * (256 + gap)
        drawn[:, left : left + 256] = cell
    drawn[rows - 256 : rows - 256 + len(key), len(cells) * (256 + gap) :] = key
    cv2.imwrite(picture, drawn[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main(*sys.argv[1:])
