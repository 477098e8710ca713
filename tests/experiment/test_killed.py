"""A training that is killed in any phase and resumed ends like one that was not."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, user_environment
from mlflow import MlflowClient
from test_resume import MORE, assert_same_curves, assert_same_end
from training_command import run

pytestmark = pytest.mark.usefixtures("forked_python")

PROGRAM = Path(__file__).with_name("killed_trainings.py")


def killed_trainings(folder, *words, **options):
    environment = {**user_environment(), "PYTHONPATH": ":".join(path for path in sys.path if path)}
    command = [sys.executable, PROGRAM, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, **options)


def problems(folder, points):
    """Kill a training at each of some points, resume it, and return what went wrong."""
    done = killed_trainings(folder, folder, *points, timeout=900)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["point"] for item in found] == list(points)
    return [item for item in found if item["problem"] is not None]


def test_killed_in_its_last_evaluation_or_after_it(tmp_path):
    assert problems(tmp_path, ["evaluation:before:2", "state_00000004.safetensors:after:2", "end:before:1"]) == []


@pytest.mark.slow
def test_killed_at_every_point(tmp_path):
    """Each entry of the journal and each file is written, half written or not written when the kill comes."""
    points = killed_trainings(tmp_path, tmp_path / "points", timeout=1800).stdout.split()
    assert {"compile", "run", "step", "evaluation", "best.safetensors", "last.ckpt", "end", "return"} <= {
        point.partition(":")[0] for point in points
    }
    print(f"{len(points)} kills")
    assert problems(tmp_path, points) == []


@pytest.mark.slow
def test_the_command_is_killed_in_every_phase(tmp_path, empty_store):
    """Here the graphs are compiled, and the run is created, sent and packaged in MLflow."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    overrides = [*TINY, *MORE]
    assert run(tmp_path, *overrides, "hydra.run.dir=whole")[0] == 0
    points = [
        *("compile:before:1", "compile:after:1", "send open:after:1", "send start:after:1", "step:after:1"),
        *("evaluation:before:2", "evaluation:after:2", "best.safetensors:before:1", "last.safetensors:after:1"),
        *("model:after:1", "end:before:1", "send end:before:1", "send end:after:1"),
    ]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for number, point in enumerate(points):
        words = [*overrides, f"hydra.run.dir={number}", "resume=auto", "trainer.checkpoint_minutes=0"]
        done = killed_trainings(tmp_path, "command", point, *words, timeout=1800)
        assert done.returncode == -signal.SIGKILL, (point, done.stdout, done.stderr)
        code, out, err = run(tmp_path, *words)
        assert code == 0, (point, out, err)
        assert_same_end(tmp_path / str(number), tmp_path / "whole")
        runs = {run.data.tags["output_folder"]: run.info.run_id for run in client.search_runs(["1"])}
        assert len(runs) == number + 2, point
        run_id = runs[str(tmp_path / str(number))]
        assert_same_curves(client, run_id, runs[str(tmp_path / "whole")])
        models = [model.source_run_id for model in client.search_logged_models(["1"])]
        assert models.count(run_id) == 1, point
