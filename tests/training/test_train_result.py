"""The outcome of a training is short where it is shown."""

from pathlib import Path

import numpy as np

from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.training.callbacks import EvaluationEvent
from fcnlab.training.evaluation import Evaluation
from fcnlab.training.result import TrainResult


def result():
    confusion = ConfusionMatrix(2, 255)
    confusion.update(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    image = np.zeros((512, 512, 3), np.uint8)
    evaluation = Evaluation(0.5, confusion, ["sky", "<road>"], [(image, image)])
    event = EvaluationEvent(40, 2, evaluation, improved=True)
    return TrainResult(60, [0.5] * 60, event, Path("out/best.safetensors"), run_id="abc")


def test_its_line_has_the_metrics_and_neither_losses_nor_images():
    line = repr(result())
    assert line.startswith("TrainResult(steps=60, best_epoch=2, pixel_accuracy=0.75, ")
    assert "mean_iou=0.5833" in line  # (2 / 3 + 1 / 2) / 2
    assert line.endswith("best_checkpoint='out/best.safetensors', run_id='abc')")
    assert len(line) < 300
    assert repr(TrainResult(3)) == "TrainResult(steps=3, best_checkpoint='None')"


def test_a_notebook_gets_the_table_of_the_best_evaluation():
    table = result()._repr_html_()
    for text in ("epoch 2", "out/best.safetensors", "sky", "0.6667", "&lt;road&gt;", "0.5000", "mean iou", "0.5833"):
        assert text in table
    assert "3 steps without an evaluation" in TrainResult(3)._repr_html_()
