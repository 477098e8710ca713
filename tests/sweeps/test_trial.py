"""How the process of a trial is started, watched and explained."""

import pickle
import signal
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf

from fcnlab import compose
from fcnlab.core.errors import FcnlabError
from fcnlab.sweeps import trial
from fcnlab.sweeps.outcome import Outcome, allow_to_run, ask_to_end, read_all
from fcnlab.sweeps.trial import RESULT, Task


@pytest.fixture
def task(tmp_path):
    return Task(compose(), tmp_path / "0", [], [], {}, True, 0, tmp_path)


def run_instead(monkeypatch, code):
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", f"import os, sys, signal, time\n{code}"))


def test_what_the_process_reached_is_the_outcome(task, monkeypatch):
    result = task.folder / RESULT
    run_instead(monkeypatch, f'open({str(result)!r}, \'w\').write(\'{{"value": 0.5, "run_id": "abc"}}\')')
    outcome = Outcome(0)
    trial._train(task, outcome, None)
    assert (outcome.status, outcome.value, outcome.run_id) == ("finished", 0.5, "abc")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            r"was killed \(SIGKILL\), as the system does when memory runs out",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("sys.exit(7)", "exit code 7"),
    ],
)
def test_a_process_that_dies_is_explained_in_one_line(task, monkeypatch, code, said):
    run_instead(monkeypatch, code)
    with pytest.raises(FcnlabError, match=said) as caught:
        trial._train(task, Outcome(0), None)
    assert "\n" not in str(caught.value)


def test_a_trial_that_is_told_to_end_does_not_end_the_sweep(task, monkeypatch):
    run_instead(monkeypatch, "sys.exit(143)")
    outcome = Outcome(0)
    trial._train(task, outcome, None)
    assert (outcome.status, outcome.reason) == ("killed", "was told to end (SIGTERM)")


def test_a_reason_of_its_own_is_the_reason(task, monkeypatch):
    result = task.folder / RESULT
    run_instead(monkeypatch, f"open({str(result)!r}, 'w').write('{{\"reason\": \"loss is nan\"}}'); sys.exit(1)")
    with pytest.raises(FcnlabError, match=r"^loss is nan$"):
        trial._train(task, Outcome(0), None)


def test_a_result_of_an_earlier_attempt_does_not_count(task, monkeypatch):
    task.folder.mkdir()
    (task.folder / RESULT).write_text('{"value": 0.9}')
    run_instead(monkeypatch, "pass")
    outcome = Outcome(0)
    trial._train(task, outcome, None)
    assert outcome.value is None


def test_what_its_sweep_says_ends_the_process_wherever_it_runs(task, monkeypatch, tmp_path):
    run_instead(monkeypatch, "time.sleep(60)")
    ask_to_end(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trial._train(task, Outcome(0), None)
    allow_to_run(tmp_path)
    run_instead(monkeypatch, "pass")
    outcome = Outcome(0)
    trial._train(task, outcome, None)
    assert outcome.status == "finished"


def test_ctrl_c_reaches_the_process_once_and_is_waited_for(task, monkeypatch, tmp_path):
    said = tmp_path / "said"
    run_instead(
        monkeypatch,
        f"""
def handle(number, frame):
    open({str(said)!r}, 'a').write(f'{{number}} ')
    time.sleep(0.3)
    sys.exit(130)
signal.signal(signal.SIGINT, handle)
open({str(said)!r}, 'a').write('ready ')
time.sleep(60)
""",
    )

    sleep = time.sleep

    def interrupt(seconds):
        sleep(seconds)
        if said.exists() and said.read_text() == "ready ":
            monkeypatch.setattr(time, "sleep", sleep)
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trial._train(task, Outcome(0), None)
    assert said.read_text() == f"ready {int(signal.SIGINT)} "


def test_the_process_gets_its_task_and_its_threads(task, monkeypatch, tmp_path):
    run_instead(
        monkeypatch,
        f"""
size = int.from_bytes(sys.stdin.buffer.read(8), 'little')
open({str(tmp_path / "task")!r}, 'wb').write(sys.stdin.buffer.read(size))
open({str(tmp_path / "threads")!r}, 'w').write(os.environ['OMP_NUM_THREADS'])
""",
    )
    trial._train(task, Outcome(0), 3)
    assert pickle.loads((tmp_path / "task").read_bytes()) == task
    assert (tmp_path / "threads").read_text() == "3"


def test_the_process_ends_when_nobody_waits_for_it_any_more(task):
    message = pickle.dumps(task)
    process = subprocess.Popen(trial.COMMAND, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(len(message).to_bytes(8, "little") + message[:10])  # whoever wrote this was killed
    process.stdin.close()
    assert process.wait(60) == 130


@pytest.mark.parametrize(
    ("launcher", "words", "expected"),
    [
        ({"_target_": "BasicLauncher"}, [], None),
        ({"n_jobs": 2}, [], 4),
        ({"n_jobs": -1}, [], 1),
        ({"n_jobs": 100}, [], 1),
        ({"cpus_per_task": 6}, [], 6),
        ({"ray": {"remote": {"num_cpus": 2}}}, [], 2),
        ({"n_jobs": 2}, ["sweep.threads=3"], 3),
    ],
)
def test_trials_that_run_at_once_share_the_cores(monkeypatch, launcher, words, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(trial.os, "sched_getaffinity", lambda _: set(range(8)))
    assert trial.threads(compose(words), OmegaConf.create({"launcher": launcher})) == expected


def test_outcomes_are_read_by_number_and_damaged_ones_left_out(tmp_path):
    for number in (10, 2):
        Outcome(number, ["seed=1"], "there", "failed", "why", None, None, 1.5).write(tmp_path)
    (tmp_path / "trials" / "3.json").write_text("{")
    (tmp_path / "trials" / "4.json").write_text('{"strange": 1}')
    assert [outcome.number for outcome in read_all(tmp_path)] == [2, 10]
    assert read_all(tmp_path)[0].reason == "why"
