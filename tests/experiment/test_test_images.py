"""The images that a folder keeps for a test are opened, evaluated, recorded and compared, or left out."""

import shutil

import cv2
import numpy as np
import pytest

import fcnlab
from fcnlab.comparison.trials import read_folder
from fcnlab.config import compose
from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data.folder import folder
from fcnlab.data.test_split import open_test
from fcnlab.experiment import assembly, evaluation_data
from fcnlab.preparation import mindrecord_shards
from fcnlab.recording import journal

LISTS = {"train": "012", "val": "3", "test": "45"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of six images, of which two are kept for a test."""
    root = tmp_path_factory.mktemp("made") / "data"
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(6):
        image, label = random.integers(0, 256, (40, 36, 3), np.uint8), np.zeros((40, 36), np.uint8)
        label[:, 10 + number :] = 1
        image[label == 1] //= 4
        cv2.imwrite(str(root / "images" / f"{number}.png"), image)
        cv2.imwrite(str(root / "labels" / f"{number}.png"), label)
    for split, names in LISTS.items():
        (root / f"{split}.txt").write_text("\n".join(names))
    lists = [f"{split}_list: {split}.txt" for split in LISTS]
    (root / "dataset.yaml").write_text("\n".join(["class_names: [dark, light]", *lists]))
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made, tmp_path / "data")


def training(root, *more):
    return fcnlab.compose(
        [
            *("dataset=folder", f"dataset.root={root}", "dataset.crop_size=32", "arch=fcn32s", "arch.width=0.03125"),
            *("trainer.batch_size=2", "trainer.epochs=2", "trainer.eval_every=1", "trainer.mode=pynative"),
            *("tracking=none", "trainer.ckpt=false", *more),
        ]
    )


def opened(config):
    return assembly.build_test(config, assembly.build_data(config))


def test_the_best_weights_are_evaluated_on_the_test_images_and_recorded(root, monkeypatch, capsys):
    monkeypatch.setattr("fcnlab.training.trainer.is_better", lambda evaluation, best, monitor: best is None)
    result = fcnlab.train(training(root), "trained")
    assert "Test images, with the weights of epoch 1" in capsys.readouterr().out
    network = fcnlab.load("trained/checkpoints/best.safetensors")
    counts = np.zeros((2, 2), int)
    for name in LISTS["test"]:
        label = cv2.imread(f"data/labels/{name}.png", cv2.IMREAD_GRAYSCALE)
        found = network.predict(cv2.imread(f"data/images/{name}.png")[..., ::-1])
        np.add.at(counts, (label, found), 1)
    hits = counts.diagonal()
    expected = hits / (counts.sum(axis=0) + counts.sum(axis=1) - hits)
    history = journal.history(root.parent / "trained" / journal.FILE)
    assert history["test/iou/dark"] == [(result.best.step, pytest.approx(expected[0]))]
    assert history["test/mean_iou"] == [(result.best.step, pytest.approx(expected.mean()))]
    assert result.best.step < result.steps
    trial = read_folder(root.parent / "trained")
    assert trial.metrics["test/mean_iou"] == pytest.approx(expected.mean())
    assert trial.metrics["val/mean_iou"] == result.best.evaluation.metrics["val/mean_iou"]
    entries = list(journal.read(root.parent / "trained" / journal.FILE))
    [described] = [entry.fields["datasets"] for entry in entries if entry.kind == "inputs"]
    assert [item["context"] for item in described] == ["training", "validation", "testing"]
    note = [entry.fields["values"]["mlflow.note.content"] for entry in entries if entry.kind == "tags"][-1]
    assert f"**Test images**, with the weights of step {result.best.step}" in note
    assert f"{expected.mean():.4f}" in note


def test_which_images_are_tested(root, caplog):
    assert opened(training(root)).names == ["4", "5"]
    assert opened(training(root, "dataset.test_set=none")) is None
    assert opened(training(root, f"dataset.val_list={root / 'test.txt'}")) is None
    assert "2 of the 2 images that are kept for a test also train or validate, such as '4'" in caplog.text
    (root / "labels" / "4.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged.*or set dataset.test_set=none, which leaves the test images out"):
        opened(training(root))
    (root / "test.txt").unlink()
    with pytest.raises(DataError, match="test_list: cannot read"):
        opened(training(root))


def test_what_was_recorded_without_the_key_has_no_test(root):
    assert training(root).dataset.test_set == "auto"
    assert FolderConfig().test_set == "none"


def test_evaluate_takes_the_test_images_whatever_the_lists_are(root):
    config = training(root, f"dataset.val_list={root / 'test.txt'}").dataset
    assert evaluation_data.open_split(config, "test").names == ["4", "5"]
    assert evaluation_data.open_split(config, "val").names == ["4", "5"]
    with pytest.raises(ConfigError, match="split=test: dataset=cells has no test split"):
        evaluation_data.open_split(compose([]).dataset, "test")


def test_records_hold_the_test_images_too(root, tmp_path, caplog):
    """Where an earlier version left records without them, they are files, as long as these are there."""
    config = FolderConfig(root=str(root), train_list="train.txt", val_list="val.txt")
    files = folder(config, "test")
    for split in LISTS:
        mindrecord_shards.write_split(root, split, folder(config, split))
    config.records = True
    records = [folder(config, split) for split in LISTS]
    assert [part.names for part in records] == [[*names] for names in LISTS.values()]
    assert records[-1].fingerprint() == files.fingerprint()
    for path in root.glob("test.mindrecord*"):
        path.unlink()
    assert open_test(folder, config).names == files.names
    for name in ("images", "labels"):
        (root / name).rename(tmp_path / name)
    assert open_test(folder, config) is None
    assert "holds neither their records nor their files" in caplog.text
