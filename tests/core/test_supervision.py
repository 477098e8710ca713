"""A worker outlives the process that msrun kills for long enough to stop in order."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest

from fcnlab.core import supervision
from fcnlab.core.launch import Launch

PROGRAM = """
import os, signal, sys, time
from fcnlab.core import supervision
from fcnlab.core.launch import Launch

def end(number, frame):
    print("told", number, flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
supervision.fork(Launch("worker", 1, 2, 2, sys.argv[1] == "joined", int(sys.argv[2]) or os.getppid()))
print(os.getpid(), os.getsid(0), flush=True)
for _ in range(600):
    time.sleep(0.1)
"""

WITH_INTERRUPTS = """
import os, sys, time
from fcnlab.core import interrupts, supervision
from fcnlab.core.launch import Launch

supervision.fork(Launch("worker", 1, 2, 2, False, os.getppid()))
interrupts.install()
try:
    print(os.getpid(), os.getsid(0), flush=True)
    for _ in range(600):
        time.sleep(0.1)
except interrupts.Terminated as end:
    print("told", end.number, flush=True)
    sys.exit(3)
"""


@pytest.fixture
def start(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    started = []

    def make(kind="alone", launcher=0):
        words = [sys.executable, str(script), kind, str(launcher)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        if kind == "joined":  # it may be told before it says anything
            return process, None
        child, session = map(int, process.stdout.readline().split())
        assert child == session != process.pid
        return process, child

    yield make
    for process in started:
        process.kill()
        process.communicate()


def test_the_worker_is_told_when_the_process_that_waits_for_it_is_killed(start):
    process, child = start()
    os.kill(process.pid, signal.SIGKILL)
    assert process.stdout.read() == f"told {signal.SIGTERM.value}\n"  # until the worker has ended
    for _ in range(100):
        if not psutil.pid_exists(child):
            break
        time.sleep(0.1)
    assert not psutil.pid_exists(child)


def test_a_worker_that_is_stopped_ends_with_the_process_that_waits_for_it(start):
    process, child = start()
    os.kill(child, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGKILL)
    assert process.stdout.read() == f"told {signal.SIGTERM.value}\n"


def test_a_signal_reaches_the_worker_and_its_exit_code_comes_back(start):
    process, _ = start()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 3
    assert process.stdout.read() == f"told {signal.SIGTERM.value}\n"


def test_a_signal_that_comes_within_the_fork_reaches_the_worker(tmp_path, start):
    once = "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
    (tmp_path / "program.py").write_text(PROGRAM.replace("supervision.fork(", once + "supervision.fork("))
    process, _ = start("joined")
    assert process.wait(60) == 3
    assert process.stdout.read().endswith(f"told {signal.SIGTERM.value}\n")
    assert process.stderr.read() == ""


def test_the_worker_is_told_when_msrun_that_was_to_wait_for_it_is_gone(start):
    process, _ = start("joined", 2**22 + 1)  # no such process is the parent
    assert process.wait(60) == 3
    assert process.stdout.read().endswith(f"told {signal.SIGTERM.value}\n")


def test_a_signal_to_the_worker_reaches_the_thread_that_waits_for_signals(tmp_path, start):
    (tmp_path / "program.py").write_text(WITH_INTERRUPTS)
    process, child = start()
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    assert process.wait(60) == 3
    assert process.stdout.read() == f"told {signal.SIGTERM.value}\n"


def test_a_worker_that_is_killed_is_named_in_one_line(start):
    process, child = start()
    os.kill(child, signal.SIGKILL)
    assert process.wait(60) == 1
    assert process.stderr.read() == (
        "fcnlab: worker 1 was ended by SIGKILL, as the system does when memory runs out; the same command with "
        "resume=auto goes on from the last state\n"
    )


MSRUN = """
import os, subprocess, sys, time
with open(sys.argv[2], "w") as log:
    worker = subprocess.Popen([sys.executable, sys.argv[1], "joined", "0"], stdout=log, start_new_session=True)
os.chdir(os.path.dirname(sys.argv[2]))
tail = ["/usr/bin/tail", "-f"]
printer = subprocess.Popen([*tail, os.path.basename(sys.argv[2])], stdout=subprocess.DEVNULL)
other = subprocess.Popen([*tail, sys.argv[1]], stdout=subprocess.DEVNULL)
print(worker.pid, printer.pid, other.pid, flush=True)
time.sleep(600)
"""


def test_what_prints_a_workers_log_for_msrun_ends_with_the_worker_if_msrun_is_gone(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    log = tmp_path / "worker_0.log"
    words = [sys.executable, "-c", MSRUN, str(tmp_path / "program.py"), str(log)]
    launcher = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    found = []
    try:
        found = [psutil.Process(int(number)) for number in launcher.stdout.readline().split()]
        worker, printer, other = found
        limit = time.monotonic() + 120
        while not log.read_text():
            assert time.monotonic() < limit
            time.sleep(0.1)
        time.sleep(1)
        launcher.terminate()
        launcher.wait(60)
        for process in (worker, printer):
            while is_alive(process):
                assert time.monotonic() < limit, process
                time.sleep(0.1)
        assert f"told {signal.SIGTERM.value}" in log.read_text()
        assert is_alive(other)  # which prints another file
    finally:
        launcher.kill()
        launcher.communicate()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def is_alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_the_scheduler_lists_the_processes_beside_it_once_a_second(monkeypatch):
    clock, listed = Mock(return_value=0.0), []
    monkeypatch.setattr(supervision, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(supervision, "_workers_beside", lambda own: listed.append(clock.return_value) or [])
    look = supervision._worker_watch(0, Launch("scheduler", None, 2, 2, True, os.getppid()))
    for clock.return_value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 2.0):
        look()
    assert listed == [0.0, 1.0, 2.0]
