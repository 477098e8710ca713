"""Trainings by MindSpore's launcher: as one process trains, in order when something ends them, and resumed."""

import random
import signal
import time

import numpy as np
import psutil
import pytest
from parallel_trainings import SECONDS, await_state, recorded, recorded_losses, saved_steps, start, train
from safetensors.numpy import load_file


def weights(folder):
    return load_file(folder / "checkpoints" / "last.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "workers", "words"),
    [
        ("none", (1, 2, 3), ()),
        ("group", (2, 3), ()),
        ("sync_batch", (2, 3), ("trainer.accumulate=2",)),
        ("sync_batch", (2,), ("arch.encoder=resnet18", "arch.dropout=0", "trainer.max_steps=3")),
    ],
)
def test_workers_train_as_one_process_does(tmp_path, norm, workers, words):
    words = (f"arch.norm={norm}", *words)
    train(tmp_path / "alone", 0, *words)
    losses, metrics = recorded(tmp_path / "alone")
    for count in workers:
        folder = tmp_path / f"{count} workers"
        output = train(folder, count, *words)
        assert output.count("Best evaluation") == 1  # one worker speaks for all
        found, evaluated = recorded(folder)
        # The first loss tells of the forward pass, and the second one of the gradients of all workers. Later, Adam has
        # divided by the size of each gradient again and again, which magnifies what rounding does to the smallest.
        np.testing.assert_allclose(found[:2], losses[:2], rtol=1e-5)
        np.testing.assert_allclose(found, losses, rtol=3e-3)
        assert evaluated.keys() == metrics.keys()
        for name, value in metrics.items():
            assert evaluated[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
        assert {entry.name for entry in folder.iterdir()} == {entry.name for entry in (tmp_path / "alone").iterdir()}


@pytest.mark.slow
def test_a_repetition_gives_the_same_bits_and_any_number_resumes(tmp_path):
    whole = tmp_path / "whole"
    train(whole, 2, "arch.norm=sync_batch", "trainer.max_steps=8", "trainer.eval_every=1")
    train(tmp_path / "again", 2, "arch.norm=sync_batch", "trainer.max_steps=8", "trainer.eval_every=1")
    np.testing.assert_array_equal(recorded(whole)[0], recorded(tmp_path / "again")[0])
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(value, weights(tmp_path / "again")[name])
    for count in (2, 3, 0):
        folder = tmp_path / f"then {count}"
        train(folder, 2, "arch.norm=sync_batch", "trainer.max_steps=4", "trainer.eval_every=1")
        state = load_file(folder / "checkpoints" / "state_00000004.safetensors")
        assert len(state["state.random_of_others"]) == 1
        words = ("arch.norm=sync_batch", "trainer.max_steps=8", f"resume={folder}")
        train(folder, count, *words, *(() if count else ("trainer.parallel=none",)))
        assert len(recorded(folder)[0]) == 8


def workers_of(launcher):
    """Return the processes that train, by rank; the launcher's own children wait for them."""
    found = {}
    for child in psutil.Process(launcher.pid).children():
        if child.environ().get("MS_ROLE") == "MS_WORKER" and child.children():
            found[int(child.environ()["MS_NODE_ID"])] = child.children()[0]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("what", ["Ctrl-C", "SIGTERM", "SIGTERM to a worker", "kill 0", "kill 1", "stop"])
def test_whatever_ends_a_training_all_processes_end_and_it_is_resumed(tmp_path, what):
    folder = tmp_path / "run"
    words = ("arch.norm=none", "schedule=constant", "trainer.worker_timeout=10")  # whatever the number of steps
    process = start(folder, 2, *words, "trainer.max_steps=100000", "trainer.checkpoint_minutes=0.02")
    await_state(folder, process)
    workers = workers_of(process)
    assert sorted(workers) == [0, 1]
    everything = psutil.Process(process.pid).children(recursive=True)
    time.sleep(random.uniform(0, 5))
    if what == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    elif what == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    elif what == "SIGTERM to a worker":
        workers[1].terminate()
    elif what == "stop":
        workers[1].suspend()
    else:
        workers[int(what[-1])].kill()
    began = time.monotonic()
    _, alive = psutil.wait_procs(everything, timeout=180)
    assert not alive, (what, time.monotonic() - began, [one.cmdline() for one in alive])
    process.communicate(timeout=180)
    log = (tmp_path / "run-logs" / "worker_0.log").read_text()
    said = [line for line in log.splitlines() if line.startswith("fcnlab: ")]
    assert len(said) == 1, log
    assert "Traceback" not in log
    assert "fcnlab: " not in (tmp_path / "run-logs" / "worker_1.log").read_text() or what == "kill 1"
    steps = saved_steps(folder)
    if what != "kill 0":
        assert f"after step {steps}, which is saved" in said[0] or what in ("kill 1", "stop"), said
    # Steps after the last state may be recorded, and are computed again.
    steps = max(steps, len(recorded_losses(folder))) + 2
    train(folder, 2, *words, f"trainer.max_steps={steps}", f"resume={folder}")
    assert len(recorded_losses(folder)) == steps


@pytest.mark.slow
def test_a_start_that_does_not_fit_ends_at_once_with_one_line(tmp_path):
    for workers, words, text in (
        (2, ("trainer.parallel=none",), "each of which would train the same"),
        (3, ("trainer.batch_size=2",), "trainer.batch_size=2: is the batch of all 3 workers"),
        (2, ("-m", "seed=1,2"), "-m: msrun starts the workers of one training"),
    ):
        process = start(tmp_path / "run", workers, *words)
        output = process.communicate(timeout=SECONDS)[0]
        assert process.returncode != 0
        said = [line for line in output.splitlines() if line.startswith("fcnlab: ")]
        assert len(said) == 1, output
        assert text in said[0]
        assert not (tmp_path / "run" / "journal.jsonl").exists()


@pytest.mark.slow
def test_an_error_that_all_workers_find_is_said_as_what_it_is(tmp_path):
    words = ("optimizer=sgd", "optimizer.lr=1e30", "arch.norm=none", "trainer.mode=pynative")
    process = start(tmp_path / "run", 2, *words)
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode != 0
    said = [line for line in output.splitlines() if line.startswith("fcnlab: ")]
    assert len(said) == 1, output
    assert "lower optimizer.lr" in said[0]
