"""Many trials at once on one store, as in a lab: nothing is lost, locked or left."""

import resource
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import TINY
from local_postgresql import postgresql
from local_server import tracking_server
from mlflow import MlflowClient
from training_command import run

from fcnlab.recording import journal

pytestmark = pytest.mark.slow

WORDS = ["-m", *TINY, "arch=fcn32s", "trainer.mode=pynative", "hydra/launcher=parallel", "hydra.sweep.dir=sweep"]


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep(folder, trials, at_once, *words):
    """Run a sweep in a new folder, and return its output and the processor time of a trial in seconds."""
    (folder / "temporary").mkdir(parents=True)
    before = processor_seconds()
    chosen = [f"seed=range({trials})", f"hydra.launcher.n_jobs={at_once}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder / "temporary"))
        code, out, err = run(folder, *WORDS, *chosen, *words, seconds=3000)
    assert code == 0, err
    assert not list((folder / "temporary").iterdir())
    return out + err, (processor_seconds() - before) / trials


def check(client, folder, output, trials):
    """Assert that the store has all that the trials wrote, once, and that no trial had to wait for a lock in vain."""
    for word in ("locked", "deadlock", "Traceback", "is missing there", "is left out", "not everything"):
        assert word not in output
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    recorded = [run for run in found if "fcnlab.trial" in run.data.tags]
    assert sorted(int(trial.data.params["seed"]) for trial in recorded) == list(range(trials))
    (parent,) = (run for run in found if run.data.tags.get("fcnlab.role") == "sweep")
    assert {run.info.status for run in found} == {"FINISHED"}
    assert parent.data.metrics["sweep/finished"] == trials
    for trial in recorded:
        history = journal.history(folder / "sweep" / trial.data.tags["fcnlab.trial"] / journal.FILE)
        for name in ("train/loss", "val/mean_iou"):
            points = client.get_metric_history(trial.info.run_id, name)
            assert sorted((point.step, point.value) for point in points) == history[name]


def processes_left(folder):
    """Return the commands of the processes that work in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process.info["cmdline"])
    return found


@pytest.mark.parametrize(("store", "trials", "at_once"), [("sqlite", 30, 4), ("postgresql", 16, 8)])
def test_trials_at_once_lose_nothing_and_leave_nothing(tmp_path, store, trials, at_once):
    _, without = sweep(tmp_path / "without", 4, at_once, "tracking=none")
    folder = tmp_path / "with"
    if store == "sqlite":
        output, seconds = sweep(folder, trials, at_once)
        check(MlflowClient(f"sqlite:///{folder / 'mlflow.db'}"), folder, output, trials)
    else:
        with postgresql() as uri, tracking_server(tmp_path, uri) as server:
            output, seconds = sweep(folder, trials, at_once, f"tracking.uri={server.uri}")
            check(MlflowClient(server.uri), folder, output, trials)
    print(f"{trials} trials, {at_once} at once, {store}: {seconds:.1f} s of processor time each, {without:.1f} without")
    assert not processes_left(tmp_path)
