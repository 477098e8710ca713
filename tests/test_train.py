"""The command trains, and its errors are one line."""

import hashlib
import re
import shutil
import signal
import subprocess
import time

import cv2
import numpy as np
import pytest
from mlflow import MlflowClient
from training_command import finish, run, start

import fcnlab
from fcnlab.config import config_folder
from fcnlab.core.errors import FcnlabError, TrackingError, TrainingError
from fcnlab.experiment import assembly
from fcnlab.recording import journal
from fcnlab.training.callbacks import Callback
from fcnlab.training.state import StateFolder

pytestmark = pytest.mark.usefixtures("forked_python")


def wait_for_steps(folder, process):
    """Return once a training has recorded a step."""
    deadline = time.monotonic() + 1800
    while not any(b'"train/loss"' in path.read_bytes() for path in folder.glob(f"outputs/*/*/{journal.FILE}")):
        assert time.monotonic() < deadline, "waited too long"
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def runs(folder):
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_the_command_trains_and_shows_a_table(tmp_path, tiny_overrides):
    code, out, err = run(tmp_path, "arch=fcn32s", *tiny_overrides)
    assert code == 0, err
    assert "mean iou" in out
    assert "membrane" in out
    assert "step 4/4" in out
    [finished] = runs(tmp_path)
    assert finished.info.status == "FINISHED"
    page = f"http://127.0.0.1:5000/#/experiments/{finished.info.experiment_id}/runs/{finished.info.run_id}"
    assert f"mlflow ui, then {page}?workflowType=machine_learning" in out
    assert "python -m fcnlab.predict checkpoint=outputs/" in out
    assert "python -m fcnlab.compare tracking.experiment=" in out
    assert finished.data.tags["command"].startswith("python -m fcnlab.train arch=fcn32s")
    output = next((tmp_path / "outputs").glob("*/*"))
    assert {path.name for path in output.iterdir()} >= {
        *(".hydra", "checkpoints", "config.yaml", "figures", "journal.jsonl", "model", "overlays", "train.log")
    }


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(
    ("signal_number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="ctrl-c"),
        pytest.param(signal.SIGTERM, 143, id="sigterm", marks=pytest.mark.slow),  # tests/core/test_interrupts.py has it
    ],
)
def test_an_interrupted_run_is_killed(tmp_path, tiny_overrides, signal_number, code):
    overrides = ["arch=fcn32s", "trainer.max_steps=100000", "trainer.eval_every=100000"]
    process = start(tmp_path, *tiny_overrides, *overrides)
    wait_for_steps(tmp_path, process)
    process.send_signal(signal_number)
    returned, _, err = finish(process)  # long before the last step, which is an hour away
    assert returned == code, err
    assert len(err.strip().splitlines()) == 1, err
    assert [run.info.status for run in runs(tmp_path)] == ["KILLED"]
    output = next((tmp_path / "outputs").glob("*/*"))
    state = StateFolder(output / "checkpoints").newest()
    steps = [step for step, _ in journal.history(output / journal.FILE)["train/loss"]]
    assert steps == list(range(1, state.progress.steps + 1))  # the state is of the very last step
    way_on = f"after step {state.progress.steps}, which is saved; to go on: python -m fcnlab.train resume="
    assert f"{way_on}{output.relative_to(tmp_path)}" in err


@pytest.mark.slow  # for the clock: another test's process may take the core
@pytest.mark.usefixtures("own_store")
def test_an_interrupted_run_ends_within_ten_seconds(tmp_path, tiny_overrides):
    process = start(tmp_path, *tiny_overrides, "trainer.max_steps=100000", "trainer.eval_every=100000")
    wait_for_steps(tmp_path, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["arch=fcn9s"], ["arch=fcn9s", "fcn8s"]),
        (["arch.wdth=1"], ["arch.wdth", "arch.width"]),
        (["arch.width=abc"], ["arch.width", "abc"]),
        (["trainer.epochs=0"], ["trainer.epochs=0"]),
        (["hydra.run.dir=file/below"], ["file"]),
        pytest.param(
            *(["arch.width=0.03125", "init_from=nowhere.safetensors"], ["nowhere.safetensors"]), marks=pytest.mark.slow
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(tmp_path, overrides, words):
    (tmp_path / "file").write_text("")
    code, _, err = run(tmp_path, *overrides)
    assert code == 1
    assert len(err.strip().splitlines()) == 1, err
    assert all(word in err for word in words), err
    assert not (tmp_path / "mlflow.db").exists()


def test_data_that_is_not_there_is_one_line_and_leaves_no_run(tiny, tmp_path):
    config = fcnlab.compose(["dataset=folder", "dataset.root=nowhere"])
    config.trainer = tiny().trainer
    with pytest.raises(FcnlabError, match="nowhere") as caught:
        fcnlab.train(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mlflow.db").exists()


def write_pair(root, name, image, label):
    for folder, array in (("images", image), ("labels", label)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        if array is not None:
            cv2.imwrite(str(root / folder / f"{name}.png"), array)


IMAGE = np.full((48, 48, 3), 90, np.uint8)
LABEL = np.eye(48, dtype=np.uint8)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: write_pair(root, "c", IMAGE, None), ["c.png", "label"]),
        (lambda root: write_pair(root, "c", IMAGE, LABEL[:40]), ["c.png", "40"]),
        (lambda root: write_pair(root, "c", IMAGE, LABEL * 7), ["c.png", "7", "dataset.num_classes"]),
        (lambda root: write_pair(root, "c", IMAGE, LABEL) or (root / "images/c.png").write_bytes(b"x"), ["c.png"]),
    ],
    ids=["no label", "other size", "value outside the classes", "unreadable"],
)
def test_bad_data_is_found_before_a_run_begins(tiny, tmp_path, spoil, words):
    root = tmp_path / "data"
    for name in ("a", "b"):
        write_pair(root, name, IMAGE, LABEL)
    base = tiny()
    config = fcnlab.compose(["dataset=folder", f"dataset.root={root}", "dataset.crop_size=32", "arch.width=0.03125"])
    config.trainer = base.trainer
    assert len(assembly.build_data(config).val) == 1  # the folder is right until it is spoilt
    spoil(root)
    with pytest.raises(FcnlabError) as caught:
        fcnlab.train(config)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.usefixtures("own_store")
def test_a_loss_that_runs_away_is_one_line_and_a_failed_run(tiny, tmp_path):
    config = tiny("optimizer=sgd", "optimizer.lr=1e30", "schedule=constant", "arch.norm=none")
    with pytest.raises(
        TrainingError, match=r"loss( or a gradient)? is (nan|inf) at step \d+ on .*train-.*: lower optimizer\.lr"
    ) as caught:
        fcnlab.train(config)
    assert "\n" not in str(caught.value)
    assert [run.info.status for run in runs(tmp_path)] == ["FAILED"]


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("overrides", [[], ["trainer.checkpoint_minutes=0"]], ids=["within an epoch", "before a state"])
def test_a_deleted_output_folder_ends_the_training_in_one_line(tiny, tmp_path, overrides):
    class Deleting(Callback):
        def on_step(self, record):
            shutil.rmtree(tmp_path / "out")

    with pytest.raises(TrackingError, match=r"journal\.jsonl: was deleted while the training ran") as caught:
        fcnlab.train(tiny(*overrides), tmp_path / "out", callbacks=[Deleting()])
    assert "\n" not in str(caught.value)
    assert [run.info.status for run in runs(tmp_path)] == ["FAILED"]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rm_of_the_output_folder_ends_the_command_in_one_line(tmp_path, tiny_overrides):
    overrides = ["arch=fcn32s", "trainer.epochs=100000", "trainer.eval_every=5", "trainer.checkpoint_minutes=0.01"]
    process = start(tmp_path, *tiny_overrides, *overrides, "hydra.run.dir=out")
    for line in process.stdout:
        if "val/loss" in line:
            break
    subprocess.run(["rm", "-rf", "out"], cwd=tmp_path, check=False)
    code, out, err = finish(process)
    assert code == 1, err
    assert err.count("\n") == 1, err
    assert "was deleted while the training ran" in err
    assert "Traceback" not in out
    assert [run.info.status for run in runs(tmp_path)] == ["FAILED"]


def test_init_from_starts_from_the_weights(tiny):
    overrides = ("tracking=none", "trainer.max_steps=1")
    first = fcnlab.train(tiny(*overrides))
    config = tiny(*overrides, f"init_from={first.best_checkpoint}", "optimizer.lr=1e-12", "arch=fcn16s", "seed=9")
    second = fcnlab.train(config)
    folder = second.last_checkpoint.parent.parent
    digest = hashlib.sha256(first.best_checkpoint.read_bytes()).hexdigest()
    table = (folder / "init_from.txt").read_text()
    assert digest in table
    assert re.search(r"^fc6.weight +taken +fc6.weight$", table, re.MULTILINE)
    (beginning,) = (entry.fields for entry in journal.read(folder / journal.FILE) if entry.kind == "run")
    assert beginning["tags"]["fcnlab.init_from"] == f"safetensors, this package, sha256:{digest}"
    before = fcnlab.load(first.best_checkpoint).parameters_dict()
    after = fcnlab.load(second.last_checkpoint).parameters_dict()
    np.testing.assert_allclose(after["fc6.weight"].asnumpy(), before["fc6.weight"].asnumpy(), atol=1e-6)


def test_help_names_every_group(tmp_path):
    code, out, _ = run(tmp_path, "--help")
    assert code == 0
    for group in (path.name for path in config_folder().iterdir() if path.is_dir() and path.name != "hydra"):
        assert f"{group}: " in out
