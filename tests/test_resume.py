"""A training that was interrupted, and went on, is the one that was not."""

import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TINY, user_environment
from mlflow import MlflowClient

import fcnlab
from fcnlab import assembly
from fcnlab.models.weights import read_weights
from fcnlab.tracking import journal
from fcnlab.training.callbacks import Callback


class Interrupting(Callback):
    """Ctrl-C after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, record):
        if record.step == self.step:
            raise KeyboardInterrupt


def train_until(config, folder, step):
    """Train, and be interrupted after a step."""
    build = assembly.build_trainer

    def built(*arguments):
        trainer = build(*arguments)
        trainer.callbacks.append(Interrupting(step))
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "build_trainer", built)
        with pytest.raises(KeyboardInterrupt):
            fcnlab.train(config, folder)


def assert_same_end(one, other):
    """Weights, optimizer, best and everything else of two output folders, bit for bit."""
    names = sorted(path.name for path in (one / "checkpoints").glob("*.safetensors"))
    assert {"best.safetensors", "last.safetensors"} < set(names)
    newest = max(names, key=lambda name: (name.startswith("state_"), name))
    for name in ("best.safetensors", "last.safetensors", newest):
        (arrays, document), (expected, reference) = (
            read_weights(folder / "checkpoints" / name) for folder in (one, other)
        )
        assert arrays.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(arrays[key], array, err_msg=key)
        for key in ("step", "epoch", "metrics", "progress"):
            assert document.get(key) == reference.get(key)


def points(client, run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def assert_same_curves(client, run_id, expected):
    """Each point of an uninterrupted run is in the store once, and nothing else."""
    metrics = client.get_run(expected).data.metrics
    for name in metrics:
        if name.startswith(("system/", "train/images_per_second", "train/data_wait_fraction")):
            continue
        assert sorted(points(client, run_id, name)) == points(client, expected, name), name
    steps = [step for step, _ in points(client, run_id, "train/images_per_second")]
    assert sorted(steps) == list(range(1, len(steps) + 1))
    images = [
        sorted(item.path.split("+timestamp")[0] for item in client.list_artifacts(run, "images"))
        for run in (run_id, expected)
    ]
    assert images[0] == images[1]
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbed, in its own store: overrides, output folder, result and working directory."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        words = [*TINY, "trainer.epochs=3", "tracking.overlays=1", "optimizer.lr=0.01"]
        result = fcnlab.train(fcnlab.compose(words), folder / "whole")
        yield words, folder, result


def test_interrupted_twice_it_ends_as_if_it_had_not_been(whole, tmp_path, monkeypatch):
    """Within an epoch and at its end, with dropout, Adam, a schedule and augmentation; in the same MLflow run."""
    words, folder, result = whole
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "out"
    train_until(fcnlab.compose(words), out, 3)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    run_id = client.search_runs(["1"], order_by=["attributes.start_time DESC"])[0].info.run_id
    assert client.get_run(run_id).info.status == "KILLED"
    train_until(fcnlab.compose([f"resume={run_id}"]), None, 4)  # by its id: the folder is found
    resumed = fcnlab.train(fcnlab.compose([f"resume={out}"]))
    assert resumed.run_id == run_id
    assert resumed.losses == result.losses
    assert_same_end(out, folder / "whole")
    assert_same_curves(client, run_id, result.run_id)
    assert client.get_run(run_id).data.tags["resumed_at_steps"] == "3, 4"


def test_what_was_recorded_after_the_last_state_is_not_recorded_twice(whole, tmp_path, monkeypatch):
    """As after SIGKILL: the journal, the store and a torn line are ahead of the state."""
    _, folder, result = whole
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "out"
    shutil.copytree(folder / "whole", out)
    states = sorted((out / "checkpoints").glob("state_*"))
    assert len(states) == 2
    states[-1].unlink()
    path = out / journal.FILE
    text = path.read_text()
    path.write_text(text[: text.index('{"kind":"end"')] + '{"kind":"metrics","st')
    (out / ".journal.sent").unlink()
    with path.open() as file:
        first = file.readline()
    path.write_text(text.replace(first, first.replace('"journal":"', '"journal":"0'), 1)[: text.index('{"kind":"end"')])
    resumed = fcnlab.train(fcnlab.compose([f"resume={out}"]))
    assert resumed.run_id != result.run_id
    assert resumed.losses == result.losses
    assert_same_end(out, folder / "whole")
    assert_same_curves(MlflowClient(f"sqlite:///{folder / 'mlflow.db'}"), resumed.run_id, result.run_id)


def command(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "fcnlab.train", *words],
        cwd=folder,
        env=user_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps_recorded(folder):
    path = folder / journal.FILE
    return path.read_bytes().count(b'"train/loss"') if path.exists() else 0


def kill_at_random(process, folder, chance):
    """SIGKILL after some steps, in the middle of one, or while a checkpoint is written; whether it was in time."""
    before = steps_recorded(folder)
    moment = chance.choice(["steps", "writing", "writing", "starting"])
    if moment == "starting":
        time.sleep(chance.uniform(0.3, 4))
    else:
        while process.poll() is None and steps_recorded(folder) < before + chance.randint(1, 12):
            time.sleep(0.002)
        while moment == "writing" and process.poll() is None and not list(folder.glob("checkpoints/.*.partial*")):
            pass
        if moment == "steps":
            time.sleep(chance.uniform(0, 0.05))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def train_through_kills(folder, words, kills, seed):
    """Run the same command again and again; returns how often it was killed, and how often while it wrote."""
    chance, killed, torn = random.Random(seed), 0, 0
    out = folder / "out"
    words = [*words, "hydra.run.dir=out", "resume=auto"]
    while killed < kills:
        process = command(folder, *words)
        assert kill_at_random(process, out, chance), f"it ended after {killed} kills: {process.returncode}"
        killed += 1
        torn += bool(list(out.glob("checkpoints/.*.partial*")))
    process = command(folder, *words)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert not list(out.glob("checkpoints/.*.partial*"))
    return killed, torn


def check_kills(folder, epochs, kills, seed):
    words = [*TINY, f"trainer.epochs={epochs}", f"trainer.eval_every={epochs // 8}", "tracking.overlays=1",
             "trainer.checkpoint_minutes=0.0005", "dataset.crops_per_image=4"]  # fmt: skip
    process = command(folder, *words, "hydra.run.dir=whole")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    killed, torn = train_through_kills(folder, words, kills, seed)
    assert_same_end(folder / "out", folder / "whole")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = {
        client.get_run(run.info.run_id).data.tags["output_folder"]: run.info.run_id for run in client.search_runs(["1"])
    }
    assert len(runs) == 2
    assert_same_curves(client, runs[str(folder / "out")], runs[str(folder / "whole")])
    return killed, torn


def test_killed_while_it_trains_and_writes_it_ends_as_if_it_had_not_been(tmp_path):
    check_kills(tmp_path, epochs=16, kills=2, seed=2)


@pytest.mark.slow
def test_killed_thirty_times(tmp_path):
    killed, torn = check_kills(tmp_path, epochs=200, kills=30, seed=1)
    print(f"{killed} kills, {torn} while a checkpoint was written")
    assert torn >= 3
