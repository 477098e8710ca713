"""The pictures of the evaluations of a run."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnlab.config.schema import CellsConfig
from fcnlab.data import Sample
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.recording import overlays
from fcnlab.recording.overlays import write_overlays
from fcnlab.training.callbacks import EvaluationEvent
from fcnlab.training.evaluation import Evaluation
from fcnlab.training.ranking import ROLES, RankedImage

PICTURE = np.zeros((4, 4, 3), np.uint8)


def evaluation(step, ranked=True):
    label = np.random.default_rng(step).integers(0, 2, (40, 40)).astype(np.uint8)
    sample = Sample(np.full((40, 40, 3), 9 * (step % 20), np.uint8), label, f"slice-{step}")
    confusion = ConfusionMatrix(2, 255)
    confusion.update(label, label)
    found = [RankedImage(role, 0.5, sample, label) for role in ROLES] if ranked else []
    samples = [(sample, label)] if ranked else []
    return EvaluationEvent(step, 1, Evaluation(0.5, confusion, ["membrane", "cell"], samples, ranked=found), True)


def write(folder, step, ranked=True):
    return dict(write_overlays(folder, evaluation(step, ranked), CellsConfig()))


def rows(path):
    """Return how many rows a sheet has, by its height; all rows of these tests are of one height."""
    strip = cv2.imread(str(next(path.parents[1].glob("overlays/*-worst-median-best.png"))))
    return cv2.imread(str(path)).shape[0] / (strip.shape[0] + 6)


def test_the_contact_sheet_grows_and_has_no_row_of_a_later_step(tmp_path):
    sheet = tmp_path / "figures" / "contact_sheet.png"
    names = write(tmp_path, 999_998)
    assert names.keys() == {"overlay/slice-999998", "overview/worst median and best image"}
    assert all(path.is_file() for path in names.values())
    assert rows(sheet) == 1
    for step in (1_000_000, 1_000_002):  # more digits than the others
        write(tmp_path, step)
    assert rows(sheet) == 3
    last = sheet.read_bytes()
    write(tmp_path, 1_000_000)  # as a training does that was resumed from the step before
    assert rows(sheet) == 2
    write(tmp_path, 1_000_002)
    assert sheet.read_bytes() == last


def test_a_row_that_a_kill_left_half_written_costs_no_other(tmp_path):
    write(tmp_path, 2)
    strip = next(Path(tmp_path).glob("overlays/*-worst-median-best.png"))
    whole = strip.read_bytes()
    write(tmp_path, 4)
    strip.write_bytes(whole[:20])
    write(tmp_path, 6)
    strip.write_bytes(whole)
    assert rows(tmp_path / "figures" / "contact_sheet.png") == 2


@pytest.mark.parametrize("step", [1, 8])
def test_without_overlays_there_is_no_picture(tmp_path, step):
    assert write(tmp_path, step, ranked=False) == {}
    assert not list(tmp_path.rglob("*.png"))


def test_a_long_name_leaves_room_for_the_value(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        overlays, "contact_strip", lambda images, *_, **__: titles.extend(title for title, *_ in images) or PICTURE
    )
    event = evaluation(2)
    sample = event.evaluation.samples[0][0]._replace(name="a" * 90 + "-7")
    ranked = [RankedImage(role, 0.5, sample, sample.label) for role in ROLES]
    event = replace(event, evaluation=replace(event.evaluation, samples=[], ranked=ranked))
    list(write_overlays(tmp_path, event, CellsConfig()))
    assert [title.partition(":")[0] for title in titles] == [f"{role}, mean IoU 0.500" for role in ROLES]
    assert all(title.endswith("a-7") and len(title) < 60 for title in titles)
