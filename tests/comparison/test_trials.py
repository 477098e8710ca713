"""A training reads the same from its journal as from the store that the journal was sent to."""

import math

import numpy as np
import pytest
from mlflow import MlflowClient
from recorded_trials import SWEEP, write

from fcnlab.comparison.trials import read_folder, read_trials
from fcnlab.config import TrackingConfig
from fcnlab.core.errors import TrackingError
from fcnlab.metrics.image_counts import ImageCounts
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal
from fcnlab.tracking.annotation import annotate, record_failure
from fcnlab.tracking.journal_sender import sync
from fcnlab.tracking.store import Store


def test_both_sources_say_the_same(tmp_path, uri):
    folder = write(tmp_path / "a", tags={"fcnlab.sweep": SWEEP, "fcnlab.trial": "3"})
    counts = ImageCounts(("a", "b"), ("a", "b"), np.arange(8).reshape(2, 2, 2), step=2)
    counts.write(folder / "image_counts/best.npz")
    written = Journal(folder, exist_ok=True)
    written.append("artifact", path="image_counts", to="image_counts")
    written.append("end", status="finished")
    written.close()
    sync(folder, uri)
    here, (there,) = read_folder(folder), read_trials(Store(uri), experiment="study")
    for found in (here.image_counts, there.image_counts):
        assert (found.names, found.step, found.counts.tolist()) == (("a", "b"), 2, counts.counts.tolist())
    assert here.metrics == there.metrics == {"val/mean_iou": 0.6, "val/iou/cell": 0.3}
    assert here.best_step == there.best_step == 2
    assert here.parameters == there.parameters == 1234
    assert here.images_per_second == there.images_per_second == 15.0  # the median without the first step
    assert here.validation_digest == there.validation_digest == "0123"
    assert here.training_images == there.training_images == 12
    assert here.run_id == there.run_id
    assert (here.status, here.value, here.seed) == (there.status, there.value, there.seed) == ("FINISHED", 0.6, "1")
    assert list(here.history) == list(there.history) == [(1, 0.4), (2, 0.6), (3, 0.5)]


def test_a_training_chosen_by_its_loss_is_read_at_its_lowest(tmp_path):
    written = Journal(tmp_path / "a")
    params = {"trainer.monitor": "val/loss"}
    written.append("run", journal="x", experiment="study", name="a", tags={}, params=params)
    for step, loss in enumerate([0.5, math.nan, 0.2, 0.3]):
        written.append("metrics", step=step, values={"val/loss": loss, "val/mean_iou": step / 10})
    written.close()
    found = read_folder(tmp_path / "a")
    assert (found.best_step, found.value, found.metrics["val/mean_iou"]) == (2, 0.2, 0.2)
    assert found.status == "RUNNING"


def test_an_older_training_is_read_by_its_classes_names(tmp_path, uri):
    written = Journal(tmp_path / "a")
    params = {"trainer.monitor": "val/iou/Hülle", "dataset.class_names": str(["Hülle", "a+b", "a,b"])}
    written.append("run", journal="x", experiment="study", name="a", tags={}, params=params)
    for step, iou in enumerate([0.5, 0.7]):
        written.append("metrics", step=step, values={"val/iou/H_lle": iou, "val/iou/a_b": 0.25})
    written.append("resume", step=2)  # by this version
    written.append("metrics", step=2, values={"val/iou/Hülle": 0.9, "val/iou/a:comma:b": 0.75})
    written.close()
    sync(tmp_path / "a", uri)
    here, (there,) = read_folder(tmp_path / "a"), read_trials(Store(uri), experiment="study")
    assert list(here.history) == list(there.history) == [(0, 0.5), (1, 0.7), (2, 0.9)]
    assert here.metrics == there.metrics == {"val/iou/Hülle": 0.9, "val/iou/a,b": 0.75}


def test_a_sweep_is_found_by_its_id_and_by_its_parent_and_is_not_among_its_trials(tmp_path, uri):
    tags = {"fcnlab.sweep": SWEEP}
    parent = sync(write(tmp_path / "parent", tags={**tags, "fcnlab.role": "sweep"}, identity=SWEEP), uri)
    mine = [sync(write(tmp_path / name, tags=tags), uri) for name in ("a", "b")]
    sync(write(tmp_path / "other"), uri)
    store = Store(uri)
    for name in (SWEEP, parent):
        assert [trial.run_id for trial in read_trials(store, sweep=name)] == mine
        assert store.parent_of_sweep(name) == parent
    assert len(read_trials(store, experiment="study")) == 3
    assert [trial.run_id for trial in read_trials(store, runs=mine[1:])] == mine[1:]
    assert read_trials(store, filter="metrics.`val/mean_iou` > 0.9") == []
    for wrong in ({"runs": ["f" * 32]}, {"experiment": "none"}, {"filter": "nonsense"}):
        with pytest.raises(TrackingError) as caught:
            read_trials(store, **wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parent_first", [True, False])
def test_trials_are_nested_whichever_is_sent_first(tmp_path, uri, parent_first):
    tags = {"fcnlab.sweep": SWEEP}
    folders = [
        write(tmp_path / "parent", tags={**tags, "fcnlab.role": "sweep"}, identity=SWEEP),
        write(tmp_path / "a", tags=tags),
    ]
    ids = {folder.name: sync(folder, uri) for folder in (folders if parent_first else reversed(folders))}
    client = MlflowClient(uri)
    assert client.get_run(ids["a"]).data.tags["mlflow.parentRunId"] == ids["parent"]
    assert "mlflow.parentRunId" not in client.get_run(ids["parent"]).data.tags


def test_a_failure_is_added_to_what_there_is(tmp_path, uri):
    tracking = TrackingConfig(uri=uri, experiment="study")
    folder = write(tmp_path / "killed", end=None)
    run_id = record_failure(folder, tracking, "unused", {}, {"fcnlab.reason": "killed at http://me:secret@host"})
    run = MlflowClient(uri).get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.info.run_name == "a run"
    assert run.data.tags["fcnlab.reason"] == "killed at http://me:***@host"
    assert read_folder(folder).status == "FAILED"
    annotate(folder, tracking, {"fcnlab.reason": ""})
    assert MlflowClient(uri).get_run(run_id).data.tags["fcnlab.reason"] == ""
    assert read_folder(folder).status == "FAILED"


def test_a_training_that_never_began_has_a_run_that_says_so(tmp_path, uri):
    tracking = TrackingConfig(uri=uri, experiment="study")
    folder = tmp_path / "never"
    run_id = record_failure(folder, tracking, "fcn8s-cells", {"seed": "7"}, {"fcnlab.reason": "no"})
    run = MlflowClient(uri).get_run(run_id)
    assert (run.info.status, run.info.run_name, run.data.params) == ("FAILED", "fcn8s-cells", {"seed": "7"})
    assert journal.has_ended(folder)
    assert record_failure(folder, TrackingConfig(name="none"), "x", {}, {"fcnlab.reason": "again"}) is None
    assert read_folder(folder).reason == "again"
