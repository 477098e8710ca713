"""Data-parallel trainings by MindSpore's launcher, and by the command that starts it."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
WORDS = (
    *("arch=fcn8s", "arch.width=0.03125", "dataset.crop_size=64", "dataset.cache_mib=64", "trainer.batch_size=7"),
    *("trainer.eval_every=1", "trainer.max_steps=6", "tracking=none", "trainer.checkpoint_minutes=null"),
    *("loss.class_weights=[3.0,1.0]", "optimizer.lr=0.003"),
)
SECONDS = 900  # the machine may be busy with other tests


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(folder, workers, *words):
    """Start a training of some workers in a folder; with 0, by a command without the launcher."""
    command = ["python", "-m", "fcnlab.train", *WORDS, f"hydra.run.dir={folder}", *words]
    if workers:
        options = [f"--worker_num={workers}", f"--local_worker_num={workers}", f"--master_port={free_port()}"]
        msrun = [str(Path(sys.executable).with_name("msrun")), *options, "--join=True", f"--log_dir={folder}-logs"]
        command = [*msrun, *command[:3], "trainer.parallel=data", *command[3:]]
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def train(folder, workers, *words):
    process = start(folder, workers, *words)
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, output
    return output


def recorded(folder):
    """Return the loss of each step, and the last metrics of the evaluation."""
    return recorded_losses(folder), [one for one in _recorded_metrics(folder) if "val/loss" in one][-1]


def recorded_losses(folder):
    """Return the loss of each step that is recorded."""
    return np.array([one["train/loss"] for one in _recorded_metrics(folder) if "train/loss" in one])


def _recorded_metrics(folder):
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [event["values"] for event in events if event["kind"] == "metrics"]


def await_state(folder, process):
    """Wait until a training has saved a state."""
    limit = time.monotonic() + SECONDS
    while not [*folder.glob("checkpoints/state_*.safetensors")]:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.5)


def saved_steps(folder):
    """Return the number of steps of the newest state."""
    return max(int(path.stem.partition("_")[2]) for path in folder.glob("checkpoints/state_*.safetensors"))
