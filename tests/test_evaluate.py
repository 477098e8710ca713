"""The command measures what scikit-learn and the training itself measured."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import compose_tiny
from mlflow import MlflowClient
from PIL import Image
from sklearn.metrics import confusion_matrix
from tiny_network import ARCH, compile_once, save_checkpoint

import fcnlab
from fcnlab import config as configuration
from fcnlab.core.checkpoint_header import read_metadata
from fcnlab.core.errors import CheckpointError, ConfigError, FcnlabError
from fcnlab.data.cells import Cells
from fcnlab.data.dataset import Sample
from fcnlab.evaluate import evaluate
from fcnlab.inference.evaluation_report import write_report
from fcnlab.inference.measurement import ImageResult, Measurement, WorstImage
from fcnlab.metrics.boundary import BoundaryF1
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.tracking.evaluation_log import RunLog

LABELS = ("membrane", "cell")
CELLS = ["dataset=cells", "dataset.num_train=2", "dataset.num_val=3", "dataset.image_size=64"]


def run(checkpoint, *overrides):
    return evaluate(configuration.compose([f"checkpoint={checkpoint}", *overrides], "evaluate"))


@pytest.fixture(scope="module", autouse=True)
def shared_networks():
    with pytest.MonkeyPatch.context() as patch:
        compile_once(patch)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "best.safetensors"
    return save_checkpoint(path, {**ARCH, "num_classes": 2}, {"class_names": ["membrane", "cell"], "palette": None})


@pytest.fixture(scope="module")
def report(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "out"
    return run(checkpoint, *CELLS, f"output={folder}", "worst=2"), folder


def samples():
    config = configuration.compose(["checkpoint=a", *CELLS], "evaluate").dataset
    dataset = Cells(config, "val")
    return [dataset[index] for index in range(len(dataset))]


def test_the_confusion_matrix_is_scikit_learns(report, checkpoint):
    measurement, folder = report
    network = fcnlab.load(checkpoint)
    pairs = [(sample.label.ravel(), network.predict(sample.image).ravel()) for sample in samples()]
    labels, predictions = (np.concatenate(part) for part in zip(*pairs, strict=True))
    expected = confusion_matrix(labels, predictions, labels=[0, 1])
    assert np.abs(measurement.confusion.counts - expected).sum() <= 4  # compiled code rounds differently
    assert measurement.confusion.counts.sum() == 3 * 64 * 64
    with (folder / "confusion_matrix.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == ["membrane", "cell"]
    assert [[int(value) for value in row[1:]] for row in rows[1:]] == measurement.confusion.counts.tolist()


def test_the_folder_holds_everything(report):
    measurement, folder = report
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert found["metrics"] == pytest.approx(measurement.metrics)
    names = {"pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "boundary_f1"}
    names |= {f"{kind}/{name}" for kind in ("iou", "dice", "boundary_f1") for name in ("membrane", "cell")}
    scores = {"rand_score", "information_score"}
    names |= {"expected_calibration_error", "errors_found_by_review"}
    assert set(found["metrics"]) == names | scores | {f"{score}_at_half" for score in scores}
    assert Image.open(folder / "reliability.png").size[0] > 100
    assert (found["images"], found["split"], found["step"]) == (3, "val", 12)
    assert Image.open(folder / "confusion_matrix.png").size[0] > 100
    with (folder / "images.csv").open(encoding="utf-8") as file:
        images = list(csv.DictReader(file))
    assert [row["image"] for row in images] == [f"val-000{index}" for index in range(3)]
    assert [row["group"] for row in images] == [row["image"] for row in images]
    pixels = [[int(row[f"{label} as {found}"]) for label in LABELS for found in LABELS] for row in images]
    assert np.reshape(pixels, (-1, 2, 2)).sum(axis=0).tolist() == measurement.confusion.counts.tolist()
    for row, (right, *wrong, rest) in zip(images, pixels, strict=True):
        assert float(row["pixel_accuracy"]) == (right + rest) / (right + sum(wrong) + rest)
    lowest = sorted(images, key=lambda row: float(row["mean_iou"]))[:2]
    pictures = sorted(path.name for path in (folder / "worst").iterdir())
    assert pictures == [
        f"{rank:02d}-{row['image']}-iou-{float(row['mean_iou']):.4f}.png" for rank, row in enumerate(lowest, start=1)
    ]


def test_the_calibration_is_that_of_the_probabilities(report, checkpoint):
    measurement, _ = report
    network = fcnlab.load(checkpoint)
    pairs = [(sample.label, network.probabilities(sample.image)) for sample in samples()]
    sure = np.concatenate([probabilities.max(axis=0).ravel() for _, probabilities in pairs]).astype(float)
    right = np.concatenate([(found.argmax(axis=0) == label).ravel() for label, found in pairs])
    places = np.minimum(np.floor(sure * 15), 14)
    expected = sum(abs(right[places == place].sum() - sure[places == place].sum()) for place in range(15)) / len(sure)
    assert measurement.metrics["expected_calibration_error"] == pytest.approx(expected, abs=1e-3)
    doubts = [1 - probabilities.max(axis=0).mean() for _, probabilities in pairs]
    assert [image.doubt for image in measurement.images] == pytest.approx(doubts, abs=1e-4)
    labels, confidence = network.predict_with_confidence(samples()[0].image, tile=480)
    np.testing.assert_array_equal(labels, pairs[0][1].argmax(axis=0))
    np.testing.assert_allclose(confidence, pairs[0][1].max(axis=0), atol=1e-6)


def test_averaging_and_the_tolerance_reach_the_measurement(report, checkpoint, tmp_path):
    measurement, _ = report
    other = run(checkpoint, *CELLS, f"output={tmp_path}", "flip=true", "boundary_tolerance=0")
    assert (other.confusion.counts != measurement.confusion.counts).any()
    assert other.metrics["boundary_f1"] < measurement.metrics["boundary_f1"]


def test_all_images_of_a_folder_with_the_checkpoints_classes(checkpoint, tmp_path):
    for index in range(3):
        for kind, pixels in (("images", np.full((40, 40, 3), 80 * index)), ("labels", np.eye(40) * 255)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / kind / f"{index}.png")
    overrides = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.label_values=[0,255]", "split=all"]
    measurement = run(checkpoint, *overrides, f"output={tmp_path / 'out'}", "worst=0")
    assert sorted(image.name for image in measurement.images) == ["0", "1", "2"]
    assert measurement.class_names == ["membrane", "cell"]
    assert measurement.partition is None
    assert not (tmp_path / "out" / "worst").exists()


def test_classes_of_other_names_are_refused(checkpoint, tmp_path):
    overrides = [*CELLS, "dataset.class_names=[sky,sea]", f"output={tmp_path}"]
    with pytest.raises(ConfigError, match=r"dataset\.class_names=\['sky', 'sea'\]: the checkpoint's classes are"):
        run(checkpoint, *overrides)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ([], "dataset: choose one, as in dataset=<name>; known are camvid, cells, folder, isbi2012, voc2012"),
        (["dataset=cells"], "checkpoint: give a value"),
        (["dataset=cells", "splitt=val"], "splitt: no such key; did you mean split?"),
        (["dataset=cells", "dataset.num_vall=1"], "dataset.num_vall: no such key; did you mean dataset.num_val?"),
        (["dataset=cells", "checkpoint=a", "split=tset"], "split=tset: choose one of train, val, test, all"),
    ],
)
def test_a_mistake_is_one_line(overrides, text):
    with pytest.raises(ConfigError) as caught:
        configuration.compose(overrides, "evaluate")
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def recorded(checkpoint, empty_store, tmp_path_factory):
    """A run with the checkpoint as its artifact and as a registered model; its id and the store."""
    folder = tmp_path_factory.mktemp("recorded")
    store = f"sqlite:///{shutil.copy(empty_store, folder / 'mlflow.db')}"
    client = MlflowClient(store)
    experiment = client.create_experiment("fcnlab", artifact_location=(folder / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "val/mean_iou", 0.5)
    client.log_artifact(run_id, str(checkpoint), "checkpoints")
    (folder / "model" / "artifacts").mkdir(parents=True)
    shutil.copy(checkpoint, folder / "model" / "artifacts")
    client.create_registered_model("cells")
    version = client.create_model_version("cells", (folder / "model").as_uri(), run_id)
    client.set_registered_model_alias("cells", "champion", version.version)
    return run_id, store


@pytest.mark.parametrize("source", ["runs", "models"])
def test_results_go_to_the_run_of_the_checkpoint(recorded, report, tmp_path, source, monkeypatch):
    run_id, store = recorded
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    checkpoint = {"runs": f"runs:/{run_id}", "models": "models:/cells@champion"}[source]
    measurement = run(checkpoint, *CELLS, f"tracking.uri={store}", "log_to=same", "output=out")
    assert measurement.metrics == report[0].metrics
    client = MlflowClient(store)
    logged = client.get_run(run_id).data.metrics
    assert logged["evaluate/mean_iou"] == pytest.approx(measurement.metrics["mean_iou"])
    assert logged["val/mean_iou"] == 0.5  # the training's own stay
    [point] = client.get_metric_history(run_id, "evaluate/mean_iou")[-1:]
    assert point.step == 12  # the checkpoint's
    paths = {item.path for item in client.list_artifacts(run_id, "evaluate/cells-val")}
    assert "evaluate/cells-val/metrics.json" in paths
    assert len(client.list_artifacts(run_id, "evaluate/cells-val/worst")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # no store was made here


def test_each_class_has_a_metric_of_its_own_and_a_long_name_a_picture(recorded, tmp_path):
    run_id, store = recorded
    names = ["a+b", "a,b"]
    measurement = Measurement(names, ConfusionMatrix(2, 255), BoundaryF1(2, 255, 1.0), None)
    label, prediction = np.eye(8, dtype=np.uint8), np.zeros((8, 8), np.uint8)
    prediction[:4] = label[:4]
    measurement.confusion.update(label, prediction)
    measurement.boundary.update(label, prediction)
    for index, end in enumerate("xy"):
        result = ImageResult("ä" * 250 + end, 0.5 - index / 10, 0.5)
        sample = Sample(np.zeros((8, 8, 3), np.uint8), label, result.name)
        measurement._worst.append((-result.mean_iou, -index, WorstImage(result, sample, prediction)))
    write_report(measurement, {}, tmp_path, np.zeros((2, 3), np.uint8))
    pictures = sorted(path.name for path in (tmp_path / "worst").iterdir())
    assert [name[-16:] for name in pictures] == ["y-iou-0.4000.png", "x-iou-0.5000.png"]

    overrides = ["checkpoint=none", *CELLS, f"tracking.uri={store}", f"log_to={run_id}"]
    RunLog(configuration.compose(overrides, "evaluate")).log(measurement, tmp_path, 3)
    logged = MlflowClient(store).get_run(run_id).data.metrics
    for kind in ("iou", "dice", "boundary_f1"):
        for name, written in zip(names, ("a:plus sign:b", "a:comma:b"), strict=True):
            assert logged[f"evaluate/{kind}/{written}"] == pytest.approx(measurement.metrics[f"{kind}/{name}"])


@pytest.mark.slow
def test_it_measures_what_the_training_measured_and_knows_its_run(tmp_path, monkeypatch):
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    result = fcnlab.train(compose_tiny("tracking.register_as=cells"), tmp_path / "run")
    for checkpoint in (tmp_path / "run", result.best_checkpoint, "models:/cells@champion", "models:/cells/1"):
        overrides = ["dataset=cells", "dataset.num_val=2", "dataset.image_size=64"]
        measurement = run(checkpoint, *overrides, "log_to=same", f"output={tmp_path / 'out'}")
        then = read_metadata(result.best_checkpoint)["metrics"]
        for name in ("pixel_accuracy", "mean_iou", "iou/membrane"):
            assert measurement.metrics[name] == pytest.approx(then[f"val/{name}"], abs=2e-3)
    logged = MlflowClient(store).get_metric_history(result.run_id, "evaluate/mean_iou")
    assert len(logged) == 4
    assert read_metadata(result.best_checkpoint)["palette"] == [[86, 180, 233], [230, 159, 0]]


def test_a_run_that_is_not_known_is_said_before_anything_is_computed(recorded, checkpoint, tmp_path):
    _, store = recorded
    for log_to, words in (("same", "is not known"), ("0" * 32, "is not in")):
        with pytest.raises(FcnlabError, match=words):
            run(checkpoint, *CELLS, f"tracking.uri={store}", f"log_to={log_to}", f"output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="models:/nothing@champion"):
        run("models:/nothing@champion", *CELLS, f"tracking.uri={store}")
