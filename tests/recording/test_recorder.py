"""A run holds everything that it should, as MLflow's own client reads it."""

import json
import secrets
import shutil
import threading
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import compose_tiny
from mlflow import MlflowClient
from omegaconf import OmegaConf

import fcnlab
from fcnlab.compare import compare
from fcnlab.comparison.trials import read_folder
from fcnlab.config import compose
from fcnlab.core.errors import ConfigError, FcnlabError, TrackingError
from fcnlab.experiment import assembly, recorded
from fcnlab.metrics.image_counts import ImageCounts
from fcnlab.recording import journal, run_figures
from fcnlab.recording.inputs import Input
from fcnlab.recording.provenance import DIFF_FILE
from fcnlab.recording.recorder import Recorder, default_run_name
from fcnlab.recording.tags import WORKERS_TAG
from fcnlab.tracking.journal_sender import sync
from fcnlab.training.callbacks import Plan


@pytest.fixture(scope="module")
def trained(tmp_path_factory, empty_store):
    """The configuration and the result of a finished training in the default store, and a client of that store."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        config = compose_tiny(
            *("seed=3", "dataset.seed=5"),
            *("tracking.experiment=study", "tracking.overlays=1", "tracking.register_as=study"),
        )
        result = fcnlab.train(config, folder / "out", ["seed=3"])
        yield config, result, MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def test_a_run_holds_what_it_should(trained):
    config, result, client = trained
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == default_run_name(config) == "fcn32s-cells-seed3"
    assert client.get_experiment(run.info.experiment_id).name == "study"

    assert run.data.params["arch.name"] == "fcn32s"
    assert run.data.params["optimizer.lr"] == "0.001"
    assert run.data.params["seed"] == "3"
    text = Path(client.download_artifacts(result.run_id, "config.yaml")).read_text()
    assert OmegaConf.create(text).dataset.num_train == 4

    for tag in ("host", "cpu", "python", "mindspore", "fcnlab", "seed", "command", "mlflow.user"):
        assert tag in run.data.tags
    assert run.data.tags["mindspore"] == version("mindspore")
    assert run.data.tags["hydra.overrides"] == "seed=3"
    assert f"from_run={result.run_id}" in run.data.tags["mlflow.note.content"]
    assert "finished" in run.data.tags["mlflow.note.content"]

    artifacts = {item.path for top in ("checkpoints", "figures") for item in client.list_artifacts(result.run_id, top)}
    assert artifacts >= {"checkpoints/best.safetensors", "checkpoints/last.safetensors", "figures/learning_curves.png"}
    counts = Path(client.download_artifacts(result.run_id, "figures/confusion_matrix.csv")).read_text()
    assert counts.count("membrane") == 2  # once as a row, once as a column
    for name, step in (("best", result.best.step), ("last", 4)):
        images = ImageCounts.read(Path(client.download_artifacts(result.run_id, f"image_counts/{name}.npz")))
        assert (images.names, images.groups, images.step) == (("val-0000", "val-0001"), images.names, step)
        recorded = {point.step: point.value for point in client.get_metric_history(result.run_id, "val/pixel_accuracy")}
        assert images.total.trace() / images.total.sum() == recorded[step]


def test_a_run_says_which_run_it_started_from(trained, tmp_path):
    _, result, _ = trained
    words = ("seed=3", "dataset.seed=5", "tracking=none", "trainer.max_steps=1")
    fcnlab.train(compose_tiny(*words, f"init_from={result.best_checkpoint}", "sweep.starts_from=7"), tmp_path / "next")
    tags = read_folder(tmp_path / "next").tags
    assert tags["fcnlab.init_run"] == result.run_id
    assert tags["fcnlab.starts_from"] == "7"


def test_the_images_are_inputs_with_digests(trained):
    config, result, client = trained
    inputs = {item.tags[0].value: item.dataset for item in client.get_run(result.run_id).inputs.dataset_inputs}
    splits = dict(zip(("training", "validation"), assembly.build_data(config), strict=True))
    assert {context: dataset.digest for context, dataset in inputs.items()} == {
        context: split.fingerprint() for context, split in splits.items()
    }
    assert inputs["training"].digest != inputs["validation"].digest
    assert json.loads(inputs["validation"].profile) == {"images": 2}


def test_processor_and_memory_are_recorded(trained):
    _, result, client = trained
    for name in ("system/cpu_utilization_percentage", "system/process_memory_megabytes"):
        assert client.get_metric_history(result.run_id, name)


def test_the_best_model_is_registered_and_gives_label_maps(trained):
    config, result, client = trained
    version = client.get_model_version_by_alias("study", "champion")
    assert version.run_id == result.run_id
    mlflow.set_tracking_uri(client.tracking_uri)
    model = mlflow.pyfunc.load_model(f"runs:/{result.run_id}/model")
    registered = mlflow.pyfunc.load_model("models:/study@champion")
    mlflow.set_tracking_uri(None)
    image = next(iter(assembly.build_data(config).val)).image
    label = model.predict(image[np.newaxis])
    assert label.shape == (1, *image.shape[:2])
    assert label.dtype == np.int32
    np.testing.assert_array_equal(registered.predict(image[np.newaxis]), label)
    (_, prediction), *_ = result.best.evaluation.samples
    np.testing.assert_array_equal(label[0], prediction)


def test_the_metrics_are_the_trainings(trained):
    _, result, client = trained
    losses = client.get_metric_history(result.run_id, "train/loss")
    assert [metric.step for metric in losses] == [1, 2, 3, 4]
    np.testing.assert_allclose([metric.value for metric in losses], result.losses)
    for name in ("train/learning_rate", "train/images_per_second", "train/data_wait_fraction"):
        assert len(client.get_metric_history(result.run_id, name)) == 4
    for name in ("loss", "pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "iou/cell"):
        assert [metric.step for metric in client.get_metric_history(result.run_id, f"val/{name}")] == [2, 4]
    assert max(m.value for m in client.get_metric_history(result.run_id, "val/mean_iou")) == pytest.approx(
        result.best.evaluation.metrics["val/mean_iou"]
    )


def test_overlays_show_each_evaluation_and_the_best_checkpoint_loads(trained, monkeypatch):
    _, result, client = trained
    images = [item.path for item in client.list_artifacts(result.run_id, "images") if item.path.endswith(".png")]
    for key in ("overlay~val-0000", "overview~worst median and best image"):
        assert len([path for path in images if path.startswith(f"images/{key}+step")]) == 2
    assert "figures/contact_sheet.png" in [item.path for item in client.list_artifacts(result.run_id, "figures")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    mlflow.set_tracking_uri(None)
    network = fcnlab.load(f"runs:/{result.run_id}")
    saved = fcnlab.load(result.best_checkpoint)
    for name, parameter in network.parameters_dict().items():
        np.testing.assert_array_equal(parameter.asnumpy(), saved.parameters_dict()[name].asnumpy())


@pytest.mark.parametrize(
    "overrides",
    [["trainer.epochs=2"], pytest.param(["trainer.epochs=3", "trainer.patience=1"], marks=pytest.mark.slow)],
)
def test_the_figures_show_everything_and_are_drawn_once_while_the_last_weights_are_written(
    tiny, tmp_path, monkeypatch, overrides
):
    drawn = []

    def learning_curves(history, path):
        drawn.append((threading.current_thread().name, [step for step, _ in history["train/loss"]]))

    monkeypatch.setattr(run_figures, "draw_learning_curves", learning_curves)
    if "trainer.patience=1" in overrides:
        monkeypatch.setattr("fcnlab.training.trainer.is_better", lambda evaluation, best, monitor: best is None)
    result = fcnlab.train(
        tiny(*overrides, "trainer.eval_every=1", "tracking=none", "trainer.mode=pynative"), tmp_path / "out"
    )
    assert result.steps == 4
    assert drawn == [("fcnlab-figures_0", [1, 2, 3, 4])]


def cannot_start(*_):
    raise TrackingError("cannot start a process")


def is_lost(*_):
    lost = Future()
    lost.set_exception(TrackingError("the process was lost"))
    return lost


@pytest.mark.parametrize("draw", [cannot_start, pytest.param(is_lost, marks=pytest.mark.slow)])
def test_figures_are_drawn_here_if_the_process_that_does_it_is_gone(tiny, tmp_path, uri, monkeypatch, draw):
    monkeypatch.setattr("fcnlab.tracking.sending_client.draw", draw)
    fcnlab.train(tiny("trainer.max_steps=1", f"tracking.uri={uri}"), tmp_path / "out")
    drawn = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert drawn == {"learning_curves.png", "confusion_matrix.png", "confusion_matrix.csv", "contact_sheet.png"}


@pytest.mark.usefixtures("own_store")
def test_a_training_that_fails_is_failed_and_one_interrupted_is_killed(tiny, tmp_path, monkeypatch):
    from fcnlab.training.step import TrainStep

    for error, status in ((RuntimeError("broken"), "FAILED"), (KeyboardInterrupt(), "KILLED")):

        def raise_it(self, *arguments, error=error):
            raise error

        monkeypatch.setattr(TrainStep, "__call__", raise_it)
        with pytest.raises(type(error)):
            fcnlab.train(tiny(f"tracking.run_name={status}"))
    runs = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["1"])
    assert {run.info.run_name: run.info.status for run in runs} == {"FAILED": "FAILED", "KILLED": "KILLED"}


def test_without_mlflow_there_is_the_journal_which_can_be_sent_later(tiny, tmp_path, empty_store):
    result = fcnlab.train(tiny("tracking=none"), tmp_path / "out")
    assert result.run_id is None
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    checkpoints = {path.name for path in (tmp_path / "out/checkpoints").iterdir()}
    assert checkpoints == {
        *("best.safetensors", "last.safetensors", "best.ckpt", "last.ckpt"),
        *("state_00000002.safetensors", "state_00000004.safetensors"),
    }
    losses = journal.history(tmp_path / "out" / journal.FILE)["train/loss"]
    assert losses == list(enumerate(result.losses, start=1))

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    run_id = sync(tmp_path / "out")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_run(run_id).info.status == "FINISHED"
    points = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == losses
    assert client.search_logged_models(["1"])[0].source_run_id == run_id


def test_a_second_training_does_not_write_over_the_first(tiny, tmp_path):
    first = fcnlab.train(tiny("tracking=none", "trainer.max_steps=1"), tmp_path / "out")
    before = first.best_checkpoint.read_bytes()
    with pytest.raises(TrackingError, match="already holds a training"):
        fcnlab.train(tiny("tracking=none", "seed=1"), tmp_path / "out")
    assert first.best_checkpoint.read_bytes() == before


def test_no_password_is_recorded(tiny, tmp_path, monkeypatch, caplog):
    with pytest.raises(ConfigError, match=r"tracking\.uri: holds a password.*MLFLOW_TRACKING_URI"):
        tiny("tracking.uri='http://user:s3cret@127.0.0.1:1'")
    password = secrets.token_hex(8)  # not a literal: a run records this file while it is not committed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{password}@127.0.0.1:1")
    with pytest.raises(TrackingError) as caught:
        fcnlab.train(tiny("trainer.mode=pynative"), tmp_path / "out")
    assert "127.0.0.1:1" in str(caught.value)
    assert password not in str(caught.value) + caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]


def test_a_store_that_cannot_be_reached_is_one_line(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FcnlabError) as caught:
        fcnlab.train(tiny(f"tracking.uri=sqlite:///{tmp_path}/file/mlflow.db"))
    assert "\n" not in str(caught.value)
    assert "tracking=none" in str(caught.value)


@pytest.mark.usefixtures("own_store")
def test_classes_whose_names_mlflow_refuses_are_monitored_read_back_and_compared(tiny, tmp_path):
    overrides = ("trainer.mode=pynative", "trainer.max_steps=1", "tracking.overlays=1", "trainer.monitor=val/iou/a+b")
    config = tiny(*overrides, "dataset.class_names=['a+b','a,b']")
    config.tracking.run_name = "x" * 200
    result = fcnlab.train(config, tmp_path / "out")
    best = result.best.evaluation.metrics
    classes = {"val/iou/a+b": "val/iou/a:plus sign:b", "val/iou/a,b": "val/iou/a:comma:b"}

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    logged = MlflowClient(store).get_run(result.run_id).data.metrics
    assert {name: logged[written] for name, written in classes.items()} == {name: best[name] for name in classes}
    history = journal.history(tmp_path / "out" / journal.FILE)
    assert [value for _, value in history["val/iou/a,b"]] == [best["val/iou/a,b"]]
    assert read_folder(tmp_path / "out").value == best["val/iou/a+b"]
    for monitor in ([], ["monitor=val/iou/a+b"], ["monitor='val/iou/a:plus sign:b'"]):
        found = compare(compose([f"tracking.uri={store}", f"runs=[{result.run_id}]", *monitor], "compare"))
        assert found.monitor == "val/iou/a+b"
        assert found.best_trial.metrics == best
        assert found.class_names == ["a+b", "a,b"]


def test_a_deleted_experiment_says_how_to_restore_it(tiny, tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        fcnlab.train(tiny("tracking.experiment=gone", "trainer.mode=pynative"))


def test_what_a_power_cut_took_from_the_beginning_is_recorded_when_it_is_resumed(tmp_path):
    config = compose_tiny("tracking=none", "tracking.system_metrics_every=null")
    inputs = [Input("cells", "training", "abc", "generated", 4)]
    path = tmp_path / journal.FILE

    def begin(resumed):
        recorder = Recorder(config, tmp_path, inputs, 5, [], resumed)
        recorder.on_start(Plan(epochs=1, steps_per_epoch=2, total_steps=2, batch_size=4))
        recorder.on_end("killed")

    begin(resumed=False)
    first, second, *_ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:20])
    (tmp_path / DIFF_FILE).write_text("a difference", encoding="utf-8")
    begin(resumed=True)
    begin(resumed=True)  # which records nothing twice
    entries = list(journal.read(path))
    assert [entry.kind for entry in entries].count("run") == 1
    [found] = [entry.fields["datasets"] for entry in entries if entry.kind == "inputs"]
    assert [(item["context"], item["digest"]) for item in found] == [("training", "abc")]
    assert [entry.fields["path"] for entry in entries if entry.kind == "artifact"].count(DIFF_FILE) == 1


def test_another_number_of_workers_is_recorded_when_they_resume(tmp_path):
    config = compose_tiny("tracking=none", "tracking.system_metrics_every=null")

    def begin(workers, first_step):
        tags = {} if workers == 1 else {WORKERS_TAG: str(workers)}
        recorder = Recorder(config, tmp_path, [], 5, resumed=first_step > 0, more_tags=tags)
        recorder.on_start(Plan(epochs=1, steps_per_epoch=9, total_steps=9, batch_size=4, first_step=first_step))
        recorder.on_end("killed")

    for workers, first_step in ((2, 0), (2, 1), (3, 4), (1, 6)):
        begin(workers, first_step)
    assert recorded.workers(str(tmp_path)) == [2, 3, 1]
    values = [entry.fields["values"] for entry in journal.read(tmp_path / journal.FILE) if entry.kind == "tags"]
    told = [value[WORKERS_TAG] for value in values if WORKERS_TAG in value]
    assert told == ["2, then 3 from step 4", "2, then 3 from step 4, then 1 from step 6"]
