"""Kills trainings at chosen points, resumes them and compares their end with that of one that was not killed.

This is a program: ``python killed_trainings.py <folder> [<point> ...]``. It imports everything once and forks a process
for each training, as to kill one must leave nothing that its own process could still do. In place of the network's
steps, of its evaluation and of the figures, which would take nearly all of the time, there are a few lines of numpy;
all that surrounds them is real. Without points, it prints the points of a training, one a line; otherwise, a line of
JSON for each point.

A point is ``<what>:<when>:<number>``. What is ``compile``, ``step``, ``evaluation``, the kind of an entry of the
journal, the name of a file, or ``send`` and a call to the sending process; when is ``before`` or ``after`` it happens,
where a file that is written but has not yet its name counts as before; and the number counts the occurrences from 1.

``python killed_trainings.py command <point> <word> ...`` runs the command itself, with real steps, until it passes the
point.
"""

import json
import os
import runpy
import signal
import sys
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

import fcnlab

# isort: split
from conftest import TINY
from mindspore import Tensor

from fcnlab.core import files
from fcnlab.experiment.run import train
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.metrics.image_counts import ImageCounts
from fcnlab.models.checkpoint import read_weights
from fcnlab.recording import image_tables, journal, run_figures
from fcnlab.tracking import sending_client
from fcnlab.training.evaluation import Evaluation, Evaluator
from fcnlab.training.step import TrainStep
from fcnlab.training.trainer import Trainer

OVERRIDES = [
    *TINY,
    "arch=fcn32s",
    "trainer.mode=pynative",
    "trainer.checkpoint_minutes=0",
    "trainer.save_every=1",
    "tracking=none",
    "tracking.overlays=1",
    "tracking.system_metrics_every=null",
]
MODULES = [
    *("fcnlab.experiment.assembly", "fcnlab.experiment.resume", "fcnlab.recording.recorder"),
    *("fcnlab.drawing.side_by_side", "fcnlab.training.console", "fcnlab.kernels.operators"),
]


class Points:
    """The points that a process passes; at one of them it is killed."""

    def __init__(self, deadly=None):
        self.deadly = deadly
        self.counts = Counter()
        self.passed = []

    def passing(self, what, when):
        self.counts[what, when] += 1
        point = f"{what}:{when}:{self.counts[what, when]}"
        self.passed.append(point)
        if point == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner, name, what):
        """Let each call of a method be a point, before and after it."""
        method = getattr(owner, name)

        def watched(*arguments, **named):
            kind = what(*arguments)
            self.passing(kind, "before")
            result = method(*arguments, **named)
            self.passing(kind, "after")
            return result

        setattr(owner, name, watched)

    def around_files(self):
        """Let each file that `files.replacing` writes be a point, before and after it has its name."""
        sync, written = files.sync, []

        def watched(path):
            if path.name.endswith(".partial"):
                written.append(path.name.rsplit(".", 2)[0].removeprefix("."))
                self.passing(written[-1], "before")
                sync(path)
            else:
                sync(path)
                if written:
                    self.passing(written.pop(), "after")

        files.sync = watched


def step(self, images, labels, learning_rate, *masks):
    """Change one parameter by what the images are, and return a number that depends on both."""
    value = float(images.asnumpy().mean(dtype=np.float64))
    parameter = self.network.trainable_params()[0]
    parameter.set_data(Tensor(parameter.asnumpy() + np.float32(value)))
    return Tensor(np.float32(value + parameter.asnumpy().sum(dtype=np.float64)))


def evaluate(self):
    """Evaluate a prediction that is better the more steps were made."""
    confusion, samples, counts = ConfusionMatrix(self.num_classes, self.ignore_index), [], []
    total = float(self.step.network.trainable_params()[0].asnumpy().sum(dtype=np.float64))
    for index, batch in enumerate(self.loader):
        right = int(abs(total)) % 32 + 16
        prediction = batch.labels.copy()
        prediction[:, right:] = 0
        before = confusion.counts.copy()
        confusion.update(batch.labels, prediction)
        counts.append(confusion.counts - before)
        if index < self.keep:
            samples.append((self.loader.raw(index), prediction[0]))
    names = tuple(self.loader.groups)
    return Evaluation(total, confusion, self.class_names, samples, ImageCounts(names, names, np.array(counts)))


def draw(folder, counts, class_names):
    """Write a figure that shows nothing but how long the journal is."""
    with files.replacing(folder / run_figures.FOLDER / "learning_curves.png") as temporary:
        temporary.write_text(str(len(journal.history(folder / journal.FILE)["train/loss"])))


def watched(deadly):
    """Let everything that a training does in this process be points, one of which is deadly."""
    points = Points(deadly)
    points.around(Trainer, "compile", lambda *_: "compile")
    points.around(TrainStep, "__call__", lambda *_: "step")
    points.around(Evaluator, "__call__", lambda *_: "evaluation")
    points.around(journal.Journal, "append_all", lambda _, entries: entries[0][0])
    points.around(sending_client.Channel, "call", lambda _, name: f"send {name}")
    points.around_files()
    return points


def one(config, folder, deadly=None):
    """Train in this process, and return the points that it passed."""
    TrainStep.__call__, Evaluator.__call__ = step, evaluate
    run_figures.draw = draw
    points = watched(deadly)
    train(config, folder)
    points.passing("return", "before")
    return points.passed


def forked(work, *arguments, **named):
    """Work in a process of its own; return its exit code, negative after a signal, and what it returned or said."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        code = 0
        try:
            answer = json.dumps(work(*arguments, **named))
        except BaseException:
            code, answer = 1, traceback.format_exc()
        with os.fdopen(writer, "w") as pipe:
            pipe.write(answer)
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), answer


def content(folder):
    """Return what two trainings that ended alike have in common."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    checkpoints = {}
    for path in sorted((folder / journal.CHECKPOINTS).glob("*.*")):
        if path.suffix == ".safetensors":
            arrays, document = read_weights(path)
            checkpoints[path.name] = {name: array.tobytes().hex() for name, array in sorted(arrays.items())}
            checkpoints[path.name]["document"] = [document.get(key) for key in ("step", "epoch", "metrics", "progress")]
        else:
            checkpoints[path.name] = path.read_bytes().hex()
    history = journal.history(folder / journal.FILE)
    kept = {name: values for name, values in history.items() if not name.startswith(("train/images", "train/data"))}
    entries = list(journal.read(folder / journal.FILE))
    files_of = {"artifact": "path", "image": "path", "model": "checkpoint"}
    listed = sorted({(entry.kind, entry.fields[files_of[entry.kind]]) for entry in entries if entry.kind in files_of})
    return {
        "files": sorted(found),
        "checkpoints": checkpoints,
        "image counts": {name: (folder / name).read_bytes().hex() for name in (image_tables.BEST, image_tables.LAST)},
        "history": kept,
        "steps": [number for number, _ in history["train/images_per_second"]],
        "listed": listed,
        "images": sorted(entry.fields["path"] for entry in entries if entry.kind == "image"),
        "config": (folder / "config.yaml").read_text(),
        "runs": sum(entry.kind == "run" for entry in entries),
        "inputs": [entry.fields["datasets"] for entry in entries if entry.kind == "inputs"],
        "end": entries[-1].kind if entries[-1].fields.get("status") == "finished" else "none",
    }


def difference(folder, expected):
    """Return what of a training's content is not as expected; None if nothing."""
    found = content(folder)
    for key, value in expected.items():
        if found[key] != value:
            if key == "checkpoints":
                return f"checkpoints: {[name for name in value if found[key].get(name) != value[name]]}"
            return f"{key}: {found[key]} instead of {value}"
    return None


def main(folder, points):
    for name in MODULES:  # once, rather than in each process
        __import__(name)
    config = fcnlab.compose(OVERRIDES)
    whole = folder / "whole"
    code, answer = forked(one, config, whole)
    assert code == 0, answer
    if not points:
        print("\n".join(json.loads(answer)))
        return
    expected = content(whole)
    for number, point in enumerate(points):
        out = folder / str(number)
        killed, said = forked(one, config, out, deadly=point)
        code, answer = forked(one, replace(config, resume="auto"), out)  # which begins anew where nothing was written
        problem = answer if code else difference(out, expected)
        if killed != -signal.SIGKILL:
            problem = f"was not killed, but ended with {killed}: {said}"
        print(json.dumps({"point": point, "problem": problem}), flush=True)


def command(deadly, words):
    """Run ``python -m fcnlab.train`` in this process until it passes a point, with real steps."""
    watched(deadly)
    sys.argv = ["train", *words]
    runpy.run_module("fcnlab.train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if sys.argv[1] == "command":
        command(sys.argv[2], sys.argv[3:])
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
