"""Trainings whose losses and evaluations follow a script."""

from types import SimpleNamespace

import numpy as np
from mindspore import Tensor

from fcnlab.config.schema import TrainerConfig
from fcnlab.core.workers import ALONE
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.models import build_model
from fcnlab.training.callbacks import Callback
from fcnlab.training.evaluation import Evaluation
from fcnlab.training.trainer import Trainer

METADATA = {"arch": {}, "ignore_index": 255, "class_names": ["a", "b"]}


class Recorder(Callback):
    """Records every event."""

    def __init__(self):
        self.events = []
        self.steps = []
        self.evaluations = []

    def on_start(self, plan):
        self.events.append("start")
        self.plan = plan

    def on_step(self, event):
        self.steps.append(event)

    def on_evaluation(self, event):
        self.evaluations.append(event)

    def on_checkpoint(self, kind, path):
        self.events.append((kind, path.name))

    def on_end(self, status):
        self.events.append(status)


class Loader:
    """Two steps an epoch, of images that are zero."""

    batch_size = 2
    steps_per_epoch = 2

    def epoch(self, number, start_step=0):
        for step in range(start_step, self.steps_per_epoch):
            yield SimpleNamespace(
                images=np.zeros((2, 3, 32, 32)), labels=np.zeros((2, 32, 32)), names=(f"e{number}s{step}", "b")
            )


class Step:
    """A step with scripted losses and a real network, from which checkpoints are written."""

    network = build_model("fcn32s", num_classes=2, width=1 / 64)
    parameters_dict = state = network.parameters_dict
    loss_scale = None

    def __init__(self, losses=None):
        self.losses = iter(losses or [])
        self.rates = []

    def statistics(self):
        return {}

    def set_statistics(self, statistics):
        assert statistics == {}

    def __call__(self, images, labels, learning_rate, *masks):
        self.rates.append(float(learning_rate.asnumpy()))
        return Tensor(np.float32(next(self.losses, 1.0)))


class Scripted:
    """Evaluations whose mean IoU and loss follow a script."""

    class_names = ("a", "b")
    ignore_index = 255

    def __init__(self, hits, losses=None):
        self.hits = iter(hits)
        self.losses = iter(losses or [])

    def __call__(self):
        confusion = ConfusionMatrix(2, 255)
        hits = next(self.hits)
        labels = np.array([0] * 10 + [1] * 10)
        predictions = labels.copy()
        predictions[hits // 2 : 10] = 1
        predictions[10 + hits // 2 :] = 0
        confusion.update(labels, predictions)
        return Evaluation(next(self.losses, 0.5), confusion, self.class_names, [])


def make(tmp_path, evaluator, *, step=None, recorder=None, rate=lambda step, total: 0.1, workers=ALONE, **config):
    """Return a trainer and the recorder of its events."""
    recorder = recorder or Recorder()
    config = TrainerConfig(**config)
    trainer = Trainer(
        step or Step(), Loader(), evaluator, rate, config, tmp_path, METADATA, [recorder], workers=workers
    )
    return trainer, recorder
