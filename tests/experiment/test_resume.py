"""A training that was interrupted and resumed ends like one that was not."""

import functools
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, made_once
from mlflow import MlflowClient
from training_command import start

import fcnlab
from fcnlab.core.errors import CheckpointError, ConfigError, DataError, TrackingError
from fcnlab.experiment import resume
from fcnlab.models.checkpoint import read_weights
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal
from fcnlab.recording.tags import TRIAL_TAG
from fcnlab.training.callbacks import Callback
from fcnlab.training.state import StateFolder


class Interrupting(Callback):
    """Raises Ctrl-C after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, record):
        if record.step == self.step:
            raise KeyboardInterrupt


def train_until(config, folder, step):
    """Train until Ctrl-C after a step."""
    with pytest.raises(KeyboardInterrupt):
        fcnlab.train(config, folder, callbacks=[Interrupting(step)])


def assert_same_end(one, other):
    """Compare the checkpoints of two output folders bit for bit."""
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
    """Assert that a run in the store has each point of an uninterrupted run once, and no other point."""
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


MORE = ["arch=fcn32s", "trainer.epochs=6", "trainer.eval_every=3", "dataset.crops_per_image=8", "tracking.overlays=1"]
"""The overrides for six epochs of eight steps, in graph mode, whose steps are quicker."""

SHORT = ["arch=fcn32s", "trainer.mode=pynative", "dataset.crops_per_image=6", "tracking.overlays=1"]
"""The overrides for two epochs of six steps, without a compilation, which takes longer than the steps."""


def trained(folder, overrides, empty_store):
    """Train in a folder with a store of its own, and return the result."""
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return fcnlab.train(fcnlab.compose(overrides), folder / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, empty_store):
    """The overrides, the working directory and the result of an undisturbed training with its own store."""
    folder, overrides = tmp_path_factory.mktemp("whole"), [*TINY, *MORE]
    return overrides, folder, trained(folder, overrides, empty_store)


@pytest.fixture(scope="session")
def short(tmp_path_factory, empty_store):
    """The overrides and the working directory of a shorter one, which no test changes."""
    overrides = [*TINY, *SHORT]

    def make(folder):
        kept = folder.with_name("short")  # the store names the folder of its images, which `made_once` would rename
        kept.mkdir()
        trained(kept, overrides, empty_store)

    return overrides, made_once(tmp_path_factory, "training", make).with_name("short")


def test_interrupted_within_an_epoch_it_ends_as_if_it_had_not_been(short, tmp_path, monkeypatch):
    overrides, folder = short
    shutil.copytree(folder, tmp_path / "copy")
    interrupt_and_resume(overrides, tmp_path / "copy", 9, tmp_path / "out", monkeypatch)


@pytest.mark.slow  # for the compilations
def test_interrupted_in_graph_mode_it_ends_as_if_it_had_not_been(whole, tmp_path, monkeypatch):
    overrides, folder, _ = whole
    interrupt_and_resume(overrides, folder, 29, tmp_path / "out", monkeypatch)


def interrupt_and_resume(overrides, folder, step, out, monkeypatch):
    """Repeat a training with a Ctrl-C: it has dropout, Adam, batch norm, a schedule and augmentation, and one run.

    Args:
        overrides: Those of the training.
        folder: The working directory, whose store has the run of the undisturbed training alone.
        step: The step after which Ctrl-C comes.
        out: The folder for the training.
        monkeypatch: Changes the working directory.
    """
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (undisturbed,) = client.search_runs(["1"])
    train_until(fcnlab.compose(overrides), out, step)
    run_id = client.search_runs(["1"], order_by=["attributes.start_time DESC"])[0].info.run_id
    assert client.get_run(run_id).info.status == "KILLED"
    resumed = fcnlab.train(fcnlab.compose([f"resume={run_id}"]))
    assert resumed.run_id == run_id != undisturbed.info.run_id
    losses = journal.history(folder / "whole" / journal.FILE)["train/loss"]
    assert list(enumerate(resumed.losses, start=1)) == losses
    assert_same_end(out, folder / "whole")
    assert_same_curves(client, run_id, undisturbed.info.run_id)
    assert client.get_run(run_id).data.tags["resumed_at_steps"] == str(step)
    with pytest.raises(ConfigError, match=r"is finished; raise trainer\.epochs"):
        fcnlab.train(fcnlab.compose([f"resume={out}"]))


def steps_recorded(folder):
    path = folder / journal.FILE
    return path.read_bytes().count(b'"train/loss"') if path.exists() else 0


def kill(process, folder, moment, chance):
    """Kill a training after some steps, while it writes a checkpoint or starts; return whether it still ran."""
    before = steps_recorded(folder)
    if moment == "starting":
        time.sleep(chance.uniform(0.3, 4))
    else:
        steps = chance.randint(1, 12)
        while process.poll() is None and steps_recorded(folder) < before + steps:
            time.sleep(0.002)
        while moment == "writing" and process.poll() is None and not partial(folder):
            pass
        if moment == "steps":
            time.sleep(chance.uniform(0, 0.05))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def partial(folder):
    """Return the files that a killed process was writing."""
    return list(folder.glob("checkpoints/.*.partial*"))


def train_through_kills(folder, overrides, moments, chance):
    """Run the same command again and again, and return how often it was killed while it wrote."""
    torn, overrides = 0, [*overrides, "hydra.run.dir=out", "resume=auto", "trainer.checkpoint_minutes=0"]
    for number, moment in enumerate(moments):
        process = start(folder, *overrides)
        assert kill(process, folder / "out", moment, chance), f"it ended after {number} kills: {process.returncode}"
        torn += bool(partial(folder / "out"))
    process = start(folder, *overrides)
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    assert not partial(folder / "out")
    return torn


@pytest.mark.slow  # with fewer steps, `test_killed.py` kills at each point of a training
def test_killed_as_it_writes_it_ends_as_if_it_had_not_been(whole, tmp_path):
    overrides, folder, result = whole
    train_through_kills(tmp_path, [*overrides, "tracking=none"], ["writing"], random.Random(2))
    assert_same_end(tmp_path / "out", folder / "whole")
    history = journal.history(tmp_path / "out" / journal.FILE)
    assert history["train/loss"] == list(enumerate(result.losses, start=1))
    for name, values in journal.history(folder / "whole" / journal.FILE).items():
        if name.startswith("val/") or name == "train/learning_rate":
            assert history[name] == values
    assert [step for step, _ in history["train/images_per_second"]] == list(range(1, result.steps + 1))


@pytest.mark.slow
def test_killed_thirty_times_it_ends_as_if_it_had_not_been(tmp_path):
    """The kills are at random moments, while the training starts, trains, evaluates and writes."""
    chance = random.Random(1)
    overrides = [
        *TINY,
        "trainer.epochs=200",
        "trainer.eval_every=25",
        "tracking.overlays=1",
        "dataset.crops_per_image=4",
    ]
    process = start(tmp_path, *overrides, "hydra.run.dir=whole")
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    moments = chance.choices(["steps", "writing", "starting"], [1, 2, 1], k=30)
    torn = train_through_kills(tmp_path, overrides, moments, chance)
    print(f"30 kills, {torn} while a checkpoint was written")
    assert torn >= 3
    assert_same_end(tmp_path / "out", tmp_path / "whole")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = {run.data.tags["output_folder"]: run.info.run_id for run in client.search_runs(["1"])}
    assert len(runs) == 2
    assert_same_curves(client, runs[str(tmp_path / "out")], runs[str(tmp_path / "whole")])


# Disks that are really full or read-only.


def mount(*arguments):
    """Mount, and skip the test where that is not allowed."""
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")


@contextmanager
def filled(folder, process):
    """Keep the disk full until a process ends, whatever it removes, and within the block."""
    with (folder / "filler").open("wb", buffering=0) as file:
        while process.poll() is None:
            try:
                file.write(bytes(2**16))
            except OSError:
                time.sleep(0.01)
    yield
    (folder / "filler").unlink()


def train_for(process, folder, steps):
    while process.poll() is None and steps_recorded(folder) < steps:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()


def assert_one_line(process, text):
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 1, err
    assert err.count("\n") == 1, err
    assert text in err
    print(err)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["tracking=none"], ["tracking.wait=1"]], ids=["no store", "store on the disk"])
def test_after_a_full_disk_it_ends_as_if_it_had_not_been(whole, tmp_path, overrides):
    mount("-t", "tmpfs", "-o", "size=16m", "none", str(tmp_path))
    try:
        overrides = [*whole[0], *overrides, "hydra.run.dir=out", "resume=auto", "trainer.checkpoint_minutes=0"]
        process = start(tmp_path, *overrides)
        train_for(process, tmp_path / "out", 12)
        with filled(tmp_path, process):
            assert_one_line(process, "No space left on device")
            state = StateFolder(tmp_path / "out" / "checkpoints").newest()
            assert state.progress.steps >= 11
            assert not partial(tmp_path / "out")
            assert_one_line(start(tmp_path, *overrides), "No space left on device")
        process = start(tmp_path, *overrides)
        assert process.communicate(timeout=1800)[1] == ""
        assert_same_end(tmp_path / "out", whole[1] / "whole")
        history = journal.history(tmp_path / "out" / journal.FILE)
        assert history["train/loss"] == list(enumerate(whole[2].losses, start=1))
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.slow
def test_after_a_read_only_folder_it_ends_as_if_it_had_not_been(whole, tmp_path):
    """A mount with an open journal cannot become read-only, so the folder is mounted a second time over itself."""
    out = tmp_path / "out"
    overrides = [*whole[0], "tracking=none", "hydra.run.dir=out", "resume=auto", "trainer.checkpoint_minutes=0"]
    process = start(tmp_path, *overrides)
    train_for(process, out, 12)
    try:
        mount("--bind", str(out), str(out))
    except pytest.skip.Exception:
        process.kill()
        raise
    try:
        mount("-o", "remount,bind,ro", str(out))
        assert_one_line(process, "Read-only file system")
        assert StateFolder(out / "checkpoints").newest().progress.steps >= 11
        assert_one_line(start(tmp_path, *overrides), "Read-only file system")
    finally:
        subprocess.run(["umount", "--lazy", str(out)], check=True)
    process = start(tmp_path, *overrides)
    assert process.communicate(timeout=1800)[1] == ""
    assert_same_end(out, whole[1] / "whole")


@pytest.mark.slow
def test_a_sweep_resumes_where_it_was_interrupted(tmp_path):
    overrides = ["-m", *TINY, *MORE, "seed=0,1", "resume=auto", "hydra.sweep.dir=sweep"]
    whole = start(tmp_path, *overrides[:-1], "hydra.sweep.dir=whole", "tracking=none")
    assert whole.communicate(timeout=1800)[1] == ""
    process = start(tmp_path, *overrides)
    train_for(process, tmp_path / "sweep" / "1", 11)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=1800)
    assert process.returncode == 130
    journals = [tmp_path / "sweep" / number / journal.FILE for number in "01"]
    first = journals[0].read_bytes()
    overrides[overrides.index("seed=0,1")] = "seed=0,1,2"
    process = start(tmp_path, *overrides)
    assert process.communicate(timeout=1800)[1] == ""
    assert journals[0].read_bytes() == first  # the trial was finished
    for number in "01":
        assert_same_end(tmp_path / "sweep" / number, tmp_path / "whole" / number)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    trials = client.search_runs(["1"], f"tags.`{TRIAL_TAG}` != ''")  # without the sweep's parent run
    ended = [(run.info.status, run.data.params["seed"]) for run in trials]
    assert sorted(ended) == [("FINISHED", "0"), ("FINISHED", "1"), ("FINISHED", "2")]
    overrides[overrides.index("seed=0,1,2")] = "seed=3,2"  # its folder 0 is the one of seed 0
    process = start(tmp_path, *overrides)
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("fcnlab: 1 of 3 trials failed: ")  # the third was finished by the earlier sweep
    assert "sweep/0: holds another training; choose another hydra.sweep.dir" in line
    assert journals[0].read_bytes() == first


# What cannot be resumed is refused in one line.


def refusal(overrides, error=ConfigError):
    with pytest.raises(error) as caught:
        fcnlab.train(fcnlab.compose(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copied(short, tmp_path, monkeypatch):
    """A copy of the undisturbed training as if it had been killed, below a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    overrides, folder = short
    out = tmp_path / "outputs" / "killed"
    shutil.copytree(folder / "whole", out)
    path = out / journal.FILE
    path.write_bytes(path.read_bytes().partition(b'{"kind":"tags"')[0])
    return [*overrides, "tracking=none"], out


@pytest.mark.parametrize(
    ("change", "key"),
    [("arch=fcn16s", "arch.name=fcn16s"), ("dataset.num_classes=3", "dataset.num_classes=3"), ("seed=1", "seed=1"),
     ("optimizer=sgd", "optimizer.name=sgd"), ("trainer.batch_size=2", "trainer.batch_size=2")],
)  # fmt: skip
def test_what_cannot_change_in_the_middle_is_named(copied, change, key):
    text = refusal([f"resume={copied[1]}", change, "dataset.class_names=[]"])
    assert key in text
    assert "cannot change in the middle" in text


def test_a_key_that_a_training_was_recorded_without_had_its_default(copied, monkeypatch):
    values = resume.recorded.parse_values

    def earlier(text):
        return {key: value for key, value in values(text).items() if key != "trainer.accumulate"}

    monkeypatch.setattr(resume.recorded, "parse_values", earlier)
    text = refusal([f"resume={copied[1]}", "trainer.accumulate=2"])
    assert "trainer.accumulate=2: the training in" in text
    assert "has trainer.accumulate=1, which cannot change in the middle" in text


def test_other_images_are_refused(copied):
    text = refusal([f"resume={copied[1]}", "dataset.seed=1"], DataError)
    assert "the training images are not those that its training began with" in text


def test_fewer_steps_than_were_made_are_refused(copied):
    assert "trainer.epochs" in refusal([f"resume={copied[1]}", "trainer.epochs=1"])


def test_another_version_of_mindspore_is_refused(copied, monkeypatch):
    monkeypatch.setattr("mindspore.__version__", "2.9.0")
    text = refusal([f"resume={copied[1]}"], CheckpointError)
    assert "was written with MindSpore 2.8.0, and 2.9.0 computes other numbers" in text
    assert "init_from=" in text


def test_a_training_that_is_alive_is_left_alone(copied):
    alive = Journal(copied[1], exist_ok=True)
    assert "another training is running in it" in refusal([f"resume={copied[1]}"], TrackingError)
    alive.close()


@pytest.mark.parametrize("source", ["nowhere", ".", "outputs/killed/checkpoints/best.safetensors"])
def test_what_is_no_training_or_no_state_is_named(copied, source):
    overrides = [f"resume={source}"]
    text = refusal(overrides, CheckpointError) if source.endswith(".safetensors") else refusal(overrides)
    assert source in text
    assert "init_from" in text


def test_a_run_that_is_not_in_the_store_is_named(copied, empty_store):
    shutil.copy(empty_store, "mlflow.db")
    assert f"resume={'0' * 32}" in refusal([f"resume={'0' * 32}"])


def test_resume_stands_on_the_command_line_and_alone():
    assert "give one" in refusal(["resume=a", "from_run=b"])


def test_auto_finds_the_newest_training_of_this_configuration_that_is_not_over(copied):
    overrides, out = copied
    config = fcnlab.compose([*overrides, "resume=auto"])
    assert resume.newest_training(config) == Path("outputs/killed")
    assert resume.newest_training(fcnlab.compose([*overrides, "optimizer.lr=0.1"])) is None
    written = Journal(out, exist_ok=True)
    assert resume.newest_training(config) is None  # it still runs
    written.append("end", status="finished")
    written.close()
    assert resume.newest_training(config) is None
    assert resume.newest_training(config, finished=True) == Path("outputs/killed")


@pytest.mark.parametrize("kind", ["unreadable", "a pipe", "no journal", "no configuration", "too deep", "damaged"])
def test_auto_passes_over_a_folder_that_is_foreign_or_damaged(copied, caplog, monkeypatch, kind):
    overrides, out = copied
    config = fcnlab.compose([*overrides, "resume=auto"])
    foreign = out.parent / "zz" / "foreign"
    shutil.copytree(out, foreign)
    os.utime(foreign / journal.FILE, (2e9, 2e9))  # the newest
    if kind == "unreadable":
        monkeypatch.setattr(journal, "is_being_written", functools.partial(failing, journal.is_being_written, foreign))
    elif kind == "a pipe":
        for name in (journal.FILE, "config.yaml"):
            (foreign / name).unlink()
            os.mkfifo(foreign / name)
    elif kind == "no journal":
        (foreign / journal.FILE).write_bytes(b'{"kind": "end", "time": 1, "status": "finished"}\n[1]\n\xff\n')
    else:
        text = {"no configuration": "- 1", "too deep": "[" * 9000, "damaged": "dataset: ${nothing}\narch: {name: 1}"}
        (foreign / "config.yaml").write_text(text[kind])
    assert resume.newest_training(config) == Path("outputs/killed")
    lines = [record.message for record in caplog.records if "is skipped" in record.message]
    assert len(lines) == (kind == "unreadable")
    assert all(str(foreign.relative_to(out.parent.parent)) in line for line in lines)


def failing(function, folder, given):
    if given.resolve() == folder.resolve():
        raise PermissionError(13, "Permission denied")
    return function(given)


def test_the_command_resumes_in_the_folder_of_the_training(copied):
    overrides, out = copied
    assert resume.hydra_overrides([*overrides, "resume=auto"]) == [
        "hydra.run.dir='outputs/killed'",
        "hydra.output_subdir=null",
    ]
    assert resume.hydra_overrides([f"resume={out}"])[0] == f"hydra.run.dir='{out}'"
    assert resume.hydra_overrides([*overrides, "hydra.run.dir=x", "resume=auto"]) == []
    for wrong in (["-m"], ["hydra.run.dir=elsewhere"]):
        with pytest.raises(ConfigError, match=r"leave .* out"):
            resume.hydra_overrides([f"resume={out}", *wrong])
    with pytest.raises(TrackingError, match="already holds a training"):
        resume.refuse_occupied([*overrides, f"hydra.run.dir={out}"])


def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(copied, caplog):
    _, out = copied
    newest, before = sorted((out / "checkpoints").glob("state_*"), reverse=True)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    state = resume.find(fcnlab.compose([f"resume={out}"]), None).state
    assert state.path == before
    assert f"{newest}: not a readable checkpoint (its content does not match its checksum)" in caplog.text
    assert f"falling back to {before.name}" in caplog.text


def test_all_states_damaged_is_one_line(copied):
    for state in (copied[1] / "checkpoints").glob("state_*"):
        state.write_bytes(state.read_bytes()[:-1])
    assert "not a readable checkpoint" in refusal([f"resume={copied[1]}"], CheckpointError)


@pytest.mark.slow  # the configuration of any network is resumed and reproduced in the same way
@pytest.mark.parametrize("arch", ["paper/fcn8s_atonce", "paper/fcn_alexnet"])
def test_a_published_network_resumes_and_is_reproduced(tiny, tmp_path, arch):
    few = ("dataset.num_train=1", "dataset.num_val=1", "dataset.crops_per_image=1", "trainer.batch_size=1")
    config = tiny("tracking=none", f"arch={arch}", "arch.width=0.015625", *few)
    fcnlab.train(config, tmp_path / "whole")
    train_until(config, tmp_path / "resumed", 1)
    fcnlab.train(fcnlab.compose([f"resume={tmp_path / 'resumed'}"]))
    assert_same_end(tmp_path / "resumed", tmp_path / "whole")
    fcnlab.train(fcnlab.compose([f"from_run={tmp_path / 'whole'}"]), tmp_path / "again")
    assert_same_end(tmp_path / "again", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["O2", "O3", "auto", "bf16"])
def test_in_mixed_precision_it_ends_as_if_it_had_not_been_interrupted_with_the_same_loss_scale(tmp_path, amp):
    more = ["dataset.crops_per_image=6"]
    if amp != "bf16":  # whose exponents need no scale
        more += ["trainer.loss_scale=16777216", "trainer.loss_scale_window=3"]
    if amp == "O2":
        more += ["trainer.accumulate=2", "optimizer.freeze=['encoder.block1.*']"]
        more += ["optimizer.groups=[{pattern:'*.bias',lr:2.0}]", "trainer.clip_norm=1.0"]
    config = fcnlab.compose([*TINY, *more, f"trainer.amp={amp}", "tracking=none", "arch=fcn32s"])
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    result = fcnlab.train(config, whole)
    assert (result.overflows > 0) == (amp != "bf16")
    train_until(config, parted, step=2)
    resumed = fcnlab.train(fcnlab.compose([f"resume={parted}"]))
    assert resumed.losses == result.losses
    assert resumed.overflows == result.overflows
    assert_same_end(parted, whole)
    curves, expected = (journal.metrics(list(journal.read(folder / journal.FILE))) for folder in (parted, whole))
    for name in ("train/loss_scale", "train/overflows"):
        assert (name in expected) == (amp != "bf16")
        assert curves.get(name) == expected.get(name)
