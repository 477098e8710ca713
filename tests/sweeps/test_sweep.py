"""Sweeps as a user starts them: the parent run, failures, interruptions, and what is left to do."""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import hydra
import psutil
import pytest
import training_command
from conftest import TINY
from hydra import initialize_config_dir
from mlflow import MlflowClient
from omegaconf import read_write
from training_command import finish

from fcnlab.comparison.trials import read_folder
from fcnlab.config import config_folder, register_schemas
from fcnlab.core.errors import FcnlabError
from fcnlab.recording import journal
from fcnlab.sweeps import manifest, result, stop_request
from fcnlab.sweeps.manifest import SweepManifest
from fcnlab.sweeps.result import TrialResult
from fcnlab.sweeps.sweep import Sweep

pytestmark = pytest.mark.usefixtures("forked_python")

SMALL = [*TINY, "arch=fcn32s", "trainer.ckpt=false", "tracking.overlays=0", "tracking.system_metrics_every=null"]
LONG = ["trainer.epochs=100000", "trainer.eval_every=10", "trainer.checkpoint_epochs=5"]


_started = []


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Kill the sweep of a failed test, which would never end."""
    yield
    for process in _started:
        if process.poll() is None:
            process.kill()  # its trials end by themselves
            process.communicate()
    _started.clear()


def start(folder, *words):
    process = training_command.start(folder, *words, start_new_session=True)
    _started.append(process)
    return process


def run(folder, *words):
    return finish(start(folder, *words))


def runs(folder):
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    parents = [run for run in found if run.data.tags.get("fcnlab.role") == "sweep"]
    trials = [run for run in found if run not in parents]
    return client, parents, sorted(trials, key=lambda run: int(run.data.tags["fcnlab.trial"]))


def sweep_folder(folder):
    (found,) = (path.parent for path in (folder / "multirun").rglob(manifest.FILE))
    return found


def wait_for(condition, seconds=1800):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def steps_of(folder):
    history = journal.history(folder / journal.FILE) if (folder / journal.FILE).is_file() else {}
    return [step for step, _ in history.get("train/loss", [])]


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_a_study_that_stops_by_itself_has_its_decision_in_the_parent(tmp_path):
    words = ["hydra/sweeper=verdict", "arch=fcn32s,fcn16s", "margin=0.9", "max_pairs=3", "hydra.sweeper.min_pairs=2"]
    small = [word for word in SMALL if not word.startswith("arch=")]
    code, out, err = finish(start(tmp_path, "-m", *words, *small, "optimizer.lr=0.01"), 900)
    assert code == 0, err
    client, (parent,), trials = runs(tmp_path)
    assert len(trials) in (4, 6)
    seeds = [trial.data.params["seed"] for trial in trials]
    assert seeds == sorted(seeds)
    assert parent.data.tags["fcnlab.verdict"] in ("equivalent", "better", "undecided")
    assert parent.data.tags["mlflow.note.content"].splitlines()[0].split(". ")[0] in out.replace("\n", " ")
    assert "verdict.json" in {item.path for item in client.list_artifacts(parent.info.run_id)}
    points = client.get_metric_history(parent.info.run_id, "verdict/difference")
    assert [point.step for point in points] == list(range(1, len(trials) // 2 + 1))


@pytest.mark.usefixtures("own_store")
def test_a_poisoned_trial_costs_itself_alone(tmp_path):
    code, out, err = run(tmp_path, "-m", *SMALL, "trainer.mode=pynative", "seed=1,-1")
    assert code == 1, out
    assert err.strip().splitlines()[-1] == "fcnlab: 1 of 2 trials failed: seed=-1: must be at least 0"
    client, (parent,), trials = runs(tmp_path)
    assert [run.info.status for run in trials] == ["FINISHED", "FAILED"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert trials[1].data.tags["fcnlab.reason"] == "seed=-1: must be at least 0"
    assert trials[1].data.params["seed"] == "-1"
    assert trials[0].data.tags["command"].startswith("python -m fcnlab.train -m arch.width=")
    assert parent.info.status == "FAILED"
    assert parent.data.params == {"seed": "1,-1"}
    assert parent.data.tags["fcnlab.best_run"] == trials[0].info.run_id
    assert (parent.data.metrics["sweep/finished"], parent.data.metrics["sweep/failed"]) == (1, 1)
    assert "must be at least 0" in parent.data.tags["mlflow.note.content"]
    found = {item.path for item in client.list_artifacts(parent.info.run_id, "comparison")}
    assert found >= {f"comparison/{name}" for name in ("comparison.md", "comparison.csv", "comparison.png")}
    text = client.download_artifacts(parent.info.run_id, "comparison/comparison.md", str(tmp_path))
    with open(text, encoding="utf-8") as file:
        assert "| 1 of 2 |" in file.read()


@pytest.mark.slow  # test_job.py kills the process of a trial
def test_a_killed_process_costs_its_trial_and_resuming_makes_it_whole(tmp_path):
    """Both trials are the same training, in graph mode, but for the number of threads that read images."""
    words = ["-m", *SMALL, *LONG, "dataset.num_workers=1,2", "tracking=none", "trainer.max_steps=200"]
    words.append("hydra.sweep.dir=multirun/s")
    process = start(tmp_path, *words)
    folder = tmp_path / "multirun/s"
    wait_for(lambda: len(steps_of(folder / "0")) > 20)
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    code, out, err = finish(process)
    assert code == 1, out
    assert "1 of 2 trials failed: its process was killed (SIGKILL)" in err
    assert [trial.status for trial in result.read_all(folder)] == ["failed", "finished"]
    assert "SIGKILL" in read_folder(folder / "0").reason
    code, out, err = run(tmp_path, *words, "sweep.skip_finished=true")
    assert code == 0, err
    assert out.count("is finished already") == 1
    assert steps_of(folder / "0") == list(range(1, 201))
    killed, undisturbed = (journal.history(folder / number / journal.FILE) for number in "01")
    assert killed["train/loss"] == undisturbed["train/loss"]
    assert killed["val/mean_iou"] == undisturbed["val/mean_iou"]
    assert not read_folder(folder / "0").reason
    assert read_folder(folder / "0").metrics["val/loss"] > 0
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow  # a sweep is interrupted below without a process
@pytest.mark.usefixtures("own_store")
def test_ctrl_c_ends_the_trial_and_the_sweep_and_leaves_the_rest_to_be_done(tmp_path):
    process = start(tmp_path, "-m", *SMALL, *LONG, "seed=1,2")
    wait_for(lambda: list((tmp_path / "multirun").glob("*/*/0/checkpoints/state_*")))
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)  # long before the last epoch
    assert code == 130, err
    assert "sweep.resume=" in out
    assert "missing" in out  # the second one
    _, (parent,), trials = runs(tmp_path)
    assert parent.info.status == "KILLED"
    assert [run.info.status for run in trials] == ["KILLED"]
    folder = sweep_folder(tmp_path)
    assert [trial.status for trial in result.read_all(folder)] == ["killed"]
    assert not journal.is_being_written(folder / "0")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A sweep over three seeds without a launcher: the test writes what its jobs would leave."""
    monkeypatch.chdir(tmp_path)
    register_schemas()
    words = ["tracking=none", "hydra.sweep.dir=multirun/s"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = hydra.compose("train", words, return_hydra_config=True)
    with read_write(config.hydra):
        config.hydra.overrides.task.append("seed=1,2,3")
    found = Sweep(SweepManifest("ab" * 16, ("seed=1,2,3", *words)))
    found.begin(config)
    return found, config


def test_every_job_is_told_the_folder_whatever_directory_it_runs_in(begun, tmp_path):
    sweep, config = begun
    assert config.hydra.overrides.hydra[-1] == f"hydra.sweep.dir='{tmp_path}/multirun/s'"
    sweep.end()


def test_a_job_that_is_gone_without_a_result_is_no_success(begun, capsys):
    sweep, _ = begun
    TrialResult(0, ["seed=1"], status="finished", value=0.5).write(sweep.folder)
    TrialResult(1, ["seed=2"]).write(sweep.folder)
    found = sweep.end()
    assert [trial.status for trial in found] == ["finished", "failed", "missing"]
    assert found[2].overrides == ["seed=3"]
    assert read_folder(sweep.folder).status == "FAILED"
    said = capsys.readouterr().out
    assert "trial 1 failed: its job ended without writing a result" in said
    assert "The sweep is failed" in said


def test_trials_on_other_machines_are_told_to_end_and_may_run_again(begun, monkeypatch):
    sweep, config = begun
    TrialResult(0, ["seed=1"]).write(sweep.folder)
    monkeypatch.setattr("fcnlab.sweeps.sweep._SECONDS_FOR_TRIALS_TO_STOP", 0.2)
    found = sweep.end(KeyboardInterrupt())
    assert [trial.status for trial in found] == ["killed", "missing", "missing"]
    assert stop_request.is_made(sweep.folder)
    again = Sweep(sweep.manifest)
    again.begin(config)
    assert not stop_request.is_made(sweep.folder)
    again.end()


def test_a_launcher_that_gives_up_is_one_line(monkeypatch):
    lost = type("TerminatedWorkerError", (RuntimeError,), {"__module__": "joblib.externals.loky"})

    def launch(words):
        raise lost("a worker was terminated\nand more")

    train = import_module("fcnlab.train")
    monkeypatch.setattr(train, "_hydra", launch)
    monkeypatch.setattr("fcnlab.sweeps.sweep.current", None)
    with pytest.raises(FcnlabError, match=r"^hydra/launcher: a worker was terminated$"):
        train._sweep(["-m", "seed=1,2"])


def test_a_resumed_sweep_records_each_value_once(begun):
    sweep, config = begun
    TrialResult(0, status="finished", value=0.5).write(sweep.folder)
    sweep.end(KeyboardInterrupt())
    again = Sweep(sweep.manifest)
    again.begin(config)
    TrialResult(1, status="finished", value=0.6).write(sweep.folder)
    again.end()
    history = journal.history(sweep.folder / journal.FILE)
    assert history["val/mean_iou"] == [(0, 0.5), (1, 0.6)]
    assert history["sweep/finished"] == [(1, 1), (2, 2)]


def test_the_value_of_a_class_is_recorded_under_a_name_that_mlflow_takes_and_read_back(begun):
    sweep, config = begun
    sweep.monitor = config.trainer.monitor = "val/iou/a+b"
    TrialResult(0, status="finished", value=0.5).write(sweep.folder)
    sweep.end(KeyboardInterrupt())
    assert '"val/iou/a:plus sign:b":0.5' in (sweep.folder / journal.FILE).read_text(encoding="utf-8")
    again = Sweep(sweep.manifest)
    again.begin(config)
    again.end()
    assert journal.history(sweep.folder / journal.FILE)["val/iou/a+b"] == [(0, 0.5)]


def test_a_trial_that_was_given_up_is_not_the_best(begun):
    sweep, _ = begun
    for number, (status, value) in enumerate([("finished", 0.5), ("pruned", 0.9), ("finished", 0.4)]):
        TrialResult(number, status=status, value=value, run_id=str(number)).write(sweep.folder)
    sweep.end()
    assert read_folder(sweep.folder).tags["fcnlab.best_run"] == "0"


def test_what_cannot_be_composed_is_one_line_and_a_failed_sweep(tmp_path):
    code, _, err = run(tmp_path, "-m", *SMALL, "tracking=none", "arch.width=0.1,abc")
    assert code == 1
    assert err.strip().splitlines()[-1].startswith("fcnlab: arch.width: Value 'abc'")
    assert "Traceback" not in err
    parent = read_folder(sweep_folder(tmp_path))
    assert parent.status == "FAILED"
    assert "arch.width" in parent.reason
    assert not result.read_all(sweep_folder(tmp_path))


@pytest.mark.slow
def test_a_sweep_whose_second_stage_is_killed_goes_on_there(tmp_path):
    words = [*TINY, "tracking=none", "trainer.mode=pynative", "trainer.eval_every=100", "trainer.checkpoint_epochs=1"]
    two = "hydra.sweeper.stages=[{arch:fcn32s,trainer.max_steps:2},{arch:fcn16s,trainer.max_steps:20}]"
    process = start(tmp_path, "-m", *words, "hydra/sweeper=stages", two)
    wait_for(lambda: list((tmp_path / "multirun").glob("*/*/1/checkpoints/state_*")))
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    code, _, err = finish(process)
    assert code == 1, err
    folder = sweep_folder(tmp_path)
    assert [trial.status for trial in result.read_all(folder)] == ["finished", "failed"]
    assert steps_of(folder / "1")[-1] < 20
    code, out, err = run(tmp_path, f"sweep.resume={folder.relative_to(tmp_path)}")
    assert code == 0, err
    assert out.count("is finished already") == 1
    assert steps_of(folder / "0") == [1, 2]
    assert steps_of(folder / "1") == list(range(1, 21))
    first, second = (read_folder(folder / name) for name in "01")
    assert second.tags["fcnlab.starts_from"] == "0"
    assert second.params["init_from"] == f"{folder.relative_to(tmp_path)}/0/checkpoints/best.safetensors"
    assert "taken" in (folder / "1" / "init_from.txt").read_text()
    assert "fcnlab.starts_from" not in first.tags
    assert read_folder(folder).params["arch"] == "fcn32s,fcn16s"


def test_what_a_stage_cannot_compose_is_refused_before_the_first_begins(tmp_path):
    two = "hydra.sweeper.stages=[{arch:fcn32s},{arch:fcn16s,optimizer.lr:-1}]"
    code, _, err = run(tmp_path, "-m", *TINY, "tracking=none", "hydra/sweeper=stages", two)
    assert code == 1
    assert err.strip().splitlines()[-1] == "fcnlab: optimizer.lr=-1.0: must be above 0"
    assert not list((tmp_path / "multirun").rglob("journal.jsonl"))[1:]  # only that of the sweep


@pytest.mark.slow
def test_a_sweep_that_is_killed_as_a_whole_ends_as_one_that_was_not(tmp_path):
    words = [*SMALL, "trainer.epochs=60", "trainer.eval_every=20", "trainer.checkpoint_epochs=5", "seed=1,2,3"]
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    code, _, err = run(tmp_path / "whole", "-m", *words)
    assert code == 0, err
    process = start(tmp_path / "killed", "-m", *words)
    wait_for(lambda: list((tmp_path / "killed/multirun").glob("*/*/1/checkpoints/state_*")))
    process.kill()
    process.wait()
    folder = sweep_folder(tmp_path / "killed")
    wait_for(lambda: not journal.is_being_written(folder / "1"))  # nobody waits for it, so it ends by itself
    code, _, err = run(tmp_path / "killed", f"sweep.resume={folder.relative_to(tmp_path / 'killed')}")
    assert code == 0, err
    _, (parent,), trials = runs(tmp_path / "killed")
    assert parent.info.status == "FINISHED"
    assert [run.info.status for run in trials] == ["FINISHED"] * 3
    whole = sweep_folder(tmp_path / "whole")
    for number in range(3):
        one, other = (journal.history(place / str(number) / journal.FILE) for place in (whole, folder))
        assert one["train/loss"] == other["train/loss"]
        assert one["val/mean_iou"] == other["val/mean_iou"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["parallel", "slurm_here"])
def test_two_sweeps_at_once_share_a_store(tmp_path, launcher):
    module = {"parallel": "hydra_joblib_launcher", "slurm_here": "hydra_submitit_launcher"}[launcher]
    pytest.importorskip(f"hydra_plugins.{module}")
    words = ["-m", *SMALL, "seed=1,2", f"hydra/launcher={launcher}"]
    processes = [start(tmp_path, *words, f"hydra.sweep.dir=multirun/{name}") for name in ("a", "b")]
    for process in processes:
        code, out, err = finish(process)
        assert code == 0, err
        assert "database is locked" not in out + err
    _, parents, trials = runs(tmp_path)
    assert [run.info.status for run in (*parents, *trials)] == ["FINISHED"] * 6
    nested = sorted(run.data.tags["mlflow.parentRunId"] for run in trials)
    assert nested == sorted([run.info.run_id for run in parents] * 2)


@pytest.fixture
def ray_cluster(tmp_path_factory, monkeypatch):
    """A Ray cluster on this machine, started in another directory than the sweep; it ends with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token into the user's home
    where = [f"--port={address.partition(':')[2]}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    own = tempfile.mkdtemp(prefix="ray")  # not Ray's, which would offer it to later ones; short, as sockets are in it
    where.append(f"--temp-dir={own}")
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *where]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with (elsewhere / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--include-dashboard=false", "--disable-usage-stats"],
            cwd=elsewhere,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    wait_for(lambda: "Ray runtime started" in (elsewhere / "log").read_text())
    yield address
    process.terminate()
    process.wait(60)
    shutil.rmtree(own, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "cluster"])
def test_ray_runs_the_trials(tmp_path, where, request):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    words = ["-m", *SMALL, "arch.dropout=0.5,2.0", "seed=1,2", "hydra/launcher=cluster"]
    if where == "cluster":
        words.append(f"hydra.launcher.ray.init.address='{request.getfixturevalue('ray_cluster')}'")
    code, out, err = run(tmp_path, *words)
    assert code == 1, out + err
    assert err.strip().splitlines()[-1] == "fcnlab: 2 of 4 trials failed: arch.dropout=2.0: must be below 1"
    _, (parent,), trials = runs(tmp_path)
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert [run.info.status for run in trials] == ["FINISHED", "FINISHED", "FAILED", "FAILED"]
    assert (sweep_folder(tmp_path) / "1" / journal.FILE).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["parallel", "slurm_here", "cluster"])
def test_ctrl_c_ends_the_trials_under_every_launcher(tmp_path, launcher):
    modules = {"parallel": "joblib", "slurm_here": "submitit", "cluster": "ray"}
    pytest.importorskip(f"hydra_plugins.hydra_{modules[launcher]}_launcher")
    process = start(tmp_path, "-m", *SMALL, *LONG, "seed=1,2", f"hydra/launcher={launcher}")
    wait_for(lambda: len(list((tmp_path / "multirun").glob("*/*/*/checkpoints/state_*"))) >= 2)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, out + err
    _, (parent,), trials = runs(tmp_path)
    assert [run.info.status for run in (parent, *trials)] == ["KILLED"] * 3
    assert [trial.status for trial in result.read_all(sweep_folder(tmp_path))] == ["killed"] * 2


@pytest.mark.slow
def test_a_search_is_a_sweep(tmp_path):
    pytest.importorskip("optuna")
    ranges = ["optimizer.lr=tag(log,interval(1e-5,1e-1))", "trainer.epochs=4", "trainer.monitor=val/loss"]
    settings = ["hydra/sweeper=search", "hydra.sweeper.n_trials=5", "hydra.sweeper.startup_trials=2"]
    code, _, err = run(tmp_path, "-m", *SMALL, *ranges, *settings)
    assert code == 0, err
    client, (parent,), trials = runs(tmp_path)
    assert len(trials) == 5
    assert parent.data.params["optimizer.lr"] == "tag(log,interval(1e-5,1e-1))"
    assert len(client.get_metric_history(parent.info.run_id, "val/loss")) == 5
    found = {item.path for item in client.list_artifacts(parent.info.run_id, "comparison")}
    assert "comparison/history.png" in found


@pytest.mark.slow  # only the parent run is left out
def test_hydras_own_way_to_start_a_multirun_trains_without_a_parent_run(tmp_path):
    overrides = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=many", "tracking=none", "trainer.mode=pynative", "seed=4"]
    code, _, err = run(tmp_path, *SMALL, *overrides)
    assert code == 0, err
    (trial,) = result.read_all(tmp_path / "many")
    assert trial.status == "finished"
    assert read_folder(tmp_path / "many" / "0").seed == "4"
