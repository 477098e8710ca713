"""How a job starts the process of a trial, watches it and explains its end."""

import json
import pickle
import re
import signal
import subprocess
import sys
import time

import pytest

from fcnlab import compose
from fcnlab.sweeps import job, stop_request
from fcnlab.sweeps.result import TrialResult
from fcnlab.sweeps.task import Task


@pytest.fixture
def task(tmp_path):
    return Task(compose(), tmp_path / "0", [], [], {}, True, tmp_path, TrialResult(0))


def run_instead(monkeypatch, code):
    monkeypatch.setattr(job, "COMMAND", (sys.executable, "-c", f"import os, sys, signal, time\n{code}"))


def writes(task, **reached):
    """Return the code of a process that writes a trial's result."""
    path = task.sweep / "trials" / "0.json"
    return f"open({str(path)!r}, 'w').write({json.dumps({'number': 0, **reached})!r})"


def test_what_the_process_wrote_is_the_result(task, monkeypatch):
    run_instead(monkeypatch, writes(task, status="finished", value=0.5, run_id="abc"))
    result = job._train(task, None)
    assert (result.status, result.value, result.run_id) == ("finished", 0.5, "abc")


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
    result = job._train(task, None)
    assert result.status == "failed"
    assert re.search(said, result.reason)
    assert "\n" not in result.reason


def test_a_trial_that_is_told_to_end_does_not_end_the_sweep(task, monkeypatch):
    run_instead(monkeypatch, "sys.exit(143)")
    result = job._train(task, None)
    assert (result.status, result.reason) == ("killed", "was told to end (SIGTERM)")


def test_a_reason_of_its_own_is_the_reason(task, monkeypatch):
    run_instead(monkeypatch, writes(task, status="failed", reason="loss is nan") + "; sys.exit(1)")
    result = job._train(task, None)
    assert (result.status, result.reason) == ("failed", "loss is nan")


def test_a_result_of_an_earlier_attempt_does_not_count(task, monkeypatch):
    TrialResult(0, status="finished", value=0.9).write(task.sweep)
    run_instead(monkeypatch, "sys.exit(1)")
    result = job._train(task, None)
    assert (result.status, result.value) == ("failed", None)


def test_what_its_sweep_says_ends_the_process_wherever_it_runs(task, monkeypatch, tmp_path):
    run_instead(monkeypatch, "time.sleep(60)")
    stop_request.make(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        job._train(task, None)
    stop_request.withdraw(tmp_path)
    run_instead(monkeypatch, writes(task, status="finished"))
    assert job._train(task, None).status == "finished"


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
        job._train(task, None)
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
    job._train(task, 3)
    assert pickle.loads((tmp_path / "task").read_bytes()) == task
    assert (tmp_path / "threads").read_text() == "3"


def test_the_process_ends_when_nobody_waits_for_it_any_more(task):
    message = pickle.dumps(task)
    process = subprocess.Popen(job.COMMAND, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(len(message).to_bytes(8, "little") + message[:10])  # whoever wrote this was killed
    process.stdin.close()
    assert process.wait(60) == 130
