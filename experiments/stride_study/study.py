"""Train FCNs of five strides on ISBI 2012's slices 0 to 23, and measure them on slices 24 to 29.

    python -m experiments.stride_study.study isbi2012 results [--weights vgg16.onnx] [key=value ...]

The first argument is the folder of the slices, the second a folder for everything that is written. With a file of
VGG-16's weights, FCN-32s and FCN-8s of the paper's width are trained from it and from random weights, too. Further
words are overrides of all trainings; trainer.max_steps=3 tries the study out. A study that was interrupted goes on when
the same command is given again, and --report writes the tables and figures of what is finished so far.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.stride_study import report
from experiments.trainings import evaluate, run
from fcnlab.recording import journal
from fcnlab.sweeps import result

RECIPE = ["experiment=isbi2012", "tracking=none", "trainer.ckpt=false"]

STRIDES = "arch=fcn32s,fcn16s,fcn8s,fcn4s,fcn2s"

FULL_WIDTH = ["arch=fcn32s,fcn8s", "arch.width=1.0", "trainer.max_steps=72", "trainer.eval_every=3"]

SWEEPS = {
    # The seeds come first, so that a study that is stopped early has whole tables of the first seeds.
    "quarter": ["seed=0,1,2", STRIDES, "trainer.epochs=8", "trainer.eval_every=8"],
    # The published weights of VGG-16 have no batch normalisation, and need smaller steps.
    "full_imagenet": [*FULL_WIDTH, "arch.norm=none", "optimizer.lr=1e-4"],
    "full_random": [*FULL_WIDTH, "optimizer.lr=1e-3"],
}
"""The overrides of each sweep. Every training is evaluated once, after its last step: the slices choose nothing."""


def main() -> None:
    """Do what is missing of the study, and write its tables and figures anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    for name, words in SWEEPS.items():
        if given.weights is None and name != "quarter":
            continue
        start = [f"init_from={given.weights.resolve()}"] if name == "full_imagenet" else []
        is_finished = (given.output / name).is_dir() and journal.is_finished(given.output / name)
        if not given.report and not is_finished:
            train(given.root, given.output / name, [*words, *start, *given.overrides])
        for trial in result.read_all(given.output / name):
            if trial.succeeded:
                evaluate(Path(trial.folder), "dataset=isbi2012", f"dataset.root={given.root.resolve()}")
    report.write(given.output, given.root)


def train(root: Path, sweep: Path, words: list[str]) -> None:
    """Train a sweep, or what is missing of it."""
    places = [f"dataset.root={root.resolve()}", f"hydra.sweep.dir={sweep.resolve()}"]
    run("train", "-m", *RECIPE, *words, *places, "sweep.skip_finished=true")


if __name__ == "__main__":
    main()
