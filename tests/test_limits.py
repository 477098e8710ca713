"""A training's use of the machine does not grow with its steps; a full disk ends it in one line."""

import os
import resource
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest
from conftest import TINY, compose_tiny, user_environment

import fcnlab
from fcnlab.training.callbacks import Callback
from fcnlab.training.state import StateFolder

pytestmark = pytest.mark.slow


class Watch(Callback):
    """Reads memory, open files and threads after each step."""

    def __init__(self):
        self.process = psutil.Process()
        self.readings = []

    def on_step(self, record):
        memory = self.process.memory_info().rss / 2**20
        self.readings.append((memory, self.process.num_fds(), threading.active_count(), self.process.num_threads()))


def test_memory_files_and_threads_stay_flat_over_a_thousand_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    watch = Watch()
    # There are four evaluations, a state each second, and a store beside them.
    words = ["arch=fcn32s", "dataset.crops_per_image=16", "trainer.epochs=88", "trainer.eval_every=22"]
    result = fcnlab.train(
        compose_tiny(*words, "trainer.mode=graph", "trainer.checkpoint_minutes=0.02"), callbacks=[watch]
    )
    assert result.steps == 1408
    readings = np.array(watch.readings)
    before, after = readings[300:400].mean(axis=0), readings[-100:].mean(axis=0)
    print(
        "memory (MiB), open files, Python threads, threads: step 300 to 400",
        before.round(1),
        "last 100",
        after.round(1),
    )
    assert after[0] - before[0] < 20
    assert after[1] - before[1] < 3
    assert after[2] - before[2] < 2
    assert after[3] - before[3] < 3


def test_a_disk_that_fills_up_ends_a_training_in_one_line_and_keeps_its_last_state(tmp_path):
    """A limit on the size of a file stands for the full disk; the journal reaches it first."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))

    words = [*TINY, "tracking=none", "trainer.epochs=100000", "trainer.eval_every=100000", "arch=fcn32s",
             "trainer.compile_cache=false", "arch.width=0.015625", "trainer.checkpoint_minutes=0.002",
             "hydra.run.dir=out"]  # fmt: skip
    command = [sys.executable, "-m", "fcnlab.train", *words]
    environment = {**user_environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot write (File too large); free space" in done.stderr
    state = StateFolder(tmp_path / "out" / "checkpoints").newest()
    assert state.progress.steps > 100
    assert not list((tmp_path / "out" / "checkpoints").glob(".*"))
