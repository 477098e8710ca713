"""One command starts the workers of a training, and each trial of a sweep starts its own."""

import json
import re
import signal

import numpy as np
import psutil
import pytest
from parallel_trainings import SECONDS, WORDS, await_state, recorded, saved_steps, start, train
from safetensors.numpy import load_file
from training_command import run

TWO = ("trainer.parallel=data", "trainer.workers=2")


def processes_with(folder):
    """Return the processes whose environment says that they were started for a folder's training."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FCNLAB_OF_TEST") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_one_command_trains_with_workers_as_one_process_does_and_resumes(tmp_path):
    words = ("arch.norm=sync_batch", "schedule=constant")  # which does not depend on the length of the training
    train(tmp_path / "alone", 0, *words)
    folder = tmp_path / "started"
    output = train(folder, 0, *words, *TWO, "trainer.max_steps=4")
    assert output.count("Best evaluation") == 1
    assert "starting 2 workers, whose log files are in " in output
    assert "epoch 1/1  step 4/4" in output
    assert "fcnlab.train" not in (folder / "workers" / "worker_0.log").read_text()
    state = load_file(folder / "checkpoints" / "state_00000004.safetensors")
    assert len(state["state.random_of_others"]) == 1
    train(folder, 0, *words, f"resume={folder}")  # its number of workers was recorded
    losses, metrics = recorded(tmp_path / "alone")
    found, evaluated = recorded(folder)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    for name, value in metrics.items():
        assert evaluated[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    own = {entry.name for entry in folder.iterdir()} - {entry.name for entry in (tmp_path / "alone").iterdir()}
    assert own == {"workers"}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["Ctrl-C", "SIGTERM", "killed"])
def test_what_ends_the_command_ends_its_workers_which_save_one_state(tmp_path, monkeypatch, what):
    folder = tmp_path / "run"
    monkeypatch.setenv("FCNLAB_OF_TEST", str(folder))
    words = ("arch.norm=none", *TWO, "trainer.max_steps=100000", "trainer.checkpoint_minutes=0.02")
    process = start(folder, 0, *words)
    await_state(folder, process)
    assert len(processes_with(folder)) >= 8  # the command, msrun, two for each worker and two for the scheduler
    process.send_signal({"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "killed": signal.SIGKILL}[what])
    output = process.communicate(timeout=300)[0]  # until all have closed it
    _, alive = psutil.wait_procs(processes_with(folder), timeout=100)
    assert not alive, [one.cmdline() for one in alive]
    assert process.returncode == {"Ctrl-C": 130, "SIGTERM": 143, "killed": -signal.SIGKILL}[what]
    said = [line for line in output.splitlines() if line.startswith("fcnlab: ")]
    steps = saved_steps(folder)
    assert len(said) == 1, output
    # A machine that is too busy for an orderly end within the limit has a line of its own.
    assert re.search(rf"(after step {steps}, which is saved|last whole checkpoint is kept); to go on: ", said[0])
    assert "; to go on: python -m fcnlab.train resume=" in said[0]
    assert "Traceback" not in output
    monkeypatch.delenv("FCNLAB_OF_TEST")
    train(folder, 0, "arch.norm=none", f"resume={folder}", f"trainer.max_steps={steps + 2}")
    assert len(recorded(folder)[0]) == steps + 2


@pytest.mark.slow
def test_an_error_of_the_workers_is_the_commands(tmp_path):
    words = ("optimizer=sgd", "optimizer.lr=1e30", "arch.norm=none", "trainer.mode=pynative", *TWO)
    process = start(tmp_path / "run", 0, *words)
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 1
    said = [line for line in output.splitlines() if line.startswith("fcnlab: ")]
    assert len(said) == 1, output
    assert "lower optimizer.lr" in said[0]


@pytest.mark.slow
def test_each_trial_of_a_sweep_starts_its_own_workers(tmp_path):
    """Two at once, one of which fails: neither disturbs the other."""
    words = (*WORDS, *TWO, "arch.norm=none", "hydra/launcher=parallel", "hydra.launcher.n_jobs=2")
    code, out, err = run(tmp_path, "-m", *words, "trainer.batch_size=7,1", "hydra.sweep.dir=sweep", seconds=SECONDS)
    assert code == 1
    results = [json.loads((tmp_path / "sweep" / "trials" / f"{number}.json").read_text()) for number in (0, 1)]
    assert [result["status"] for result in results] == ["finished", "failed"], (out, err)
    assert results[0]["value"] > 0
    assert "is the batch of all 2 workers" in results[1]["reason"]
    assert len(recorded(tmp_path / "sweep" / "0")[0]) == 6
    assert err.count("fcnlab: ") == 1, err


@pytest.mark.slow
@pytest.mark.parametrize(("amp", "norm"), [("O2", "group"), ("O3", "sync_batch"), ("bf16", "none")])
def test_workers_in_mixed_precision_train_as_one_process_does(tmp_path, amp, norm):
    scale = () if amp == "bf16" else ("trainer.loss_scale=1024",)
    words = (f"arch.norm={norm}", f"trainer.amp={amp}", "trainer.max_steps=4")
    train(tmp_path / "alone", 0, *words, *scale)
    train(tmp_path / "two", 0, *words, *scale, *TWO)
    np.testing.assert_allclose(recorded(tmp_path / "two")[0], recorded(tmp_path / "alone")[0], rtol=1e-2)
    if amp == "O2":  # too large a scale: steps overflow in all workers alike, or they would refuse to go on
        train(tmp_path / "scaled", 0, *words, *TWO, f"trainer.loss_scale={2**24}", "trainer.max_steps=12")
        events = [json.loads(line) for line in (tmp_path / "scaled" / "journal.jsonl").read_text().splitlines()]
        values = [event["values"] for event in events if event["kind"] == "metrics"]
        counts = [value["train/overflows"] for value in values if "train/overflows" in value]
        scales = [value["train/loss_scale"] for value in values if "train/loss_scale" in value]
        assert 0 < counts[-1] < 12
        assert counts == sorted(counts)
        assert scales[-1] == 2 ** (24 - counts[-2])
        assert np.isfinite(recorded(tmp_path / "scaled")[0]).all()
