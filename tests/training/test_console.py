"""What is on the screen, on a terminal and off it."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.training import console as module
from fcnlab.training.callbacks import EvaluationEvent, Plan, StepEvent
from fcnlab.training.console import ConsoleProgress, summary_table
from fcnlab.training.evaluation import Evaluation

PLAN = Plan(epochs=2, steps_per_epoch=50, total_steps=100, batch_size=4)


def step(number):
    return StepEvent(number, 1 + number // 50, 0.25, 1e-3, images_per_second=8.0, data_wait_fraction=0.01)


@pytest.fixture
def evaluation():
    confusion = ConfusionMatrix(3, 255)
    confusion.update(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    return Evaluation(0.5, confusion, ["sky", "road", "cow"], [])


def test_lines_come_every_few_seconds_with_what_is_left(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = ConsoleProgress(Console(force_terminal=False), seconds_between_lines=10)
    with caplog.at_level(logging.INFO):
        progress.on_start(PLAN)
        now[0] = 60  # compiling
        progress.on_step(step(1))
        for number in range(2, 101):
            now[0] += 1
            progress.on_step(step(number))
    lines = [record.message for record in caplog.records]
    assert lines[0] == "epoch 1/2  step 1/100  loss 0.2500  8.0 images/s"  # how long it takes is not known yet
    assert lines[1] == "epoch 1/2  step 11/100  loss 0.2500  8.0 images/s  left 1:29"
    assert len(lines) == 11
    assert lines[-1].endswith("left 0:00")


@pytest.mark.parametrize("monitor", ["val/mean_iou", "val/iou/road", "val/iou/cow"])
def test_best_stands_beside_the_monitored_metric(caplog, evaluation, monitor):
    progress = ConsoleProgress(Console(force_terminal=False))
    with caplog.at_level(logging.INFO):
        progress.on_start(replace(PLAN, monitor=monitor))
        progress.on_evaluation(EvaluationEvent(50, 1, evaluation, improved=True))
        progress.on_evaluation(EvaluationEvent(100, 2, evaluation, improved=False))
    first, second = (record.message for record in caplog.records)
    assert "val/loss 0.5000" in first
    if monitor != "val/iou/cow":  # which occurs in no image
        assert f"{monitor} {evaluation.metrics[monitor]:.4f}  (best)" in first
    assert "best" not in second


def test_a_bar_says_nothing_of_a_rate_that_is_not_known():
    screen = Console(force_terminal=True, record=True, width=120)
    progress = ConsoleProgress(screen)
    progress.on_start(PLAN)
    progress.on_end("killed")
    assert "nan" not in screen.export_text()


def test_a_terminal_gets_a_bar_that_goes_away():
    screen = Console(force_terminal=True, record=True, width=120)
    progress = ConsoleProgress(screen)
    progress.on_start(PLAN)
    progress.on_step(step(60))
    progress.on_end("killed")
    text = screen.export_text()
    assert "60/100" in text
    assert "loss 0.2500" in text
    assert "images/s" in text


def test_the_table_has_every_class_and_the_four_metrics(evaluation):
    screen = Console(record=True, width=100)
    screen.print(summary_table(evaluation, "Best"))
    text = screen.export_text()
    assert "0.6667" in text  # sky: 2 of 3
    assert "0.5000" in text  # road: 1 of 2
    assert "75.0%" in text
    for name in ("sky", "road", "cow", "pixel accuracy", "mean accuracy", "mean iou", "frequency weighted iou"):
        assert name in text


def test_a_class_may_be_called_like_rich_marks_its_text(evaluation):
    screen = Console(record=True, width=100)
    screen.print(summary_table(replace(evaluation, class_names=["cell [red]", "[/b]", "cow"]), "Best"))
    text = screen.export_text()
    assert "cell [red]" in text
    assert "[/b]" in text


def test_the_table_at_the_end_is_the_best_evaluations(evaluation):
    screen = Console(record=True, width=100, force_terminal=False)
    progress = ConsoleProgress(screen)
    progress.on_start(PLAN)
    progress.on_evaluation(EvaluationEvent(50, 1, evaluation, improved=True))
    progress.on_evaluation(EvaluationEvent(100, 2, evaluation, improved=False))
    progress.on_end("finished")
    assert "Best evaluation, epoch 1" in screen.export_text()


def test_a_class_that_occurs_nowhere_has_no_metric(evaluation):
    assert "val/iou/cow" not in evaluation.metrics
    assert evaluation.metrics["val/mean_iou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
