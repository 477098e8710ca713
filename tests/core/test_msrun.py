"""How msrun is started for the workers of one training, and what comes back from them."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from fcnlab.core import interrupts, launch, msrun, starter
from fcnlab.core.errors import ConfigError

LAUNCHER = """
import os, subprocess, sys, time

if len(sys.argv) == 1:  # this process is in the place of msrun
    workers = [subprocess.Popen([sys.executable, __file__, str(rank)]) for rank in range(2)]
    sys.exit(max(worker.wait() for worker in workers))

from fcnlab.core import interrupts, starter, supervision
from fcnlab.core.launch import Launch

rank = int(sys.argv[1])
launch = Launch("worker", rank, 2, 2, False, os.getppid())
link = starter.connect(launch, os.environ[starter.VARIABLE])
supervision.fork(launch, link)
interrupts.install()
exec(link.task)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    monkeypatch.setattr(msrun, "command", lambda *_: [sys.executable, str(tmp_path / "launcher.py")])
    monkeypatch.setattr(interrupts, "be_silent", lambda: None)
    monkeypatch.setenv("PYTHONPATH", str(Path(starter.__file__).parents[2]))
    return lambda task: msrun.run(2, "a.module", task.encode(), tmp_path / "logs")


def test_msrun_and_its_workers_read_what_they_are_told(monkeypatch):
    from mindspore.parallel.cluster.run import get_args

    words = msrun.command(3, 4711, Path("/a b/logs"), "python3", "a.module")
    assert words[:3] == [sys.executable, "-m", "mindspore.parallel.cluster.run"]
    monkeypatch.setattr(sys, "argv", ["msrun", *words[3:]])
    found = get_args()
    assert (found.worker_num, found.local_worker_num, found.master_port) == (3, 3, 4711)
    assert (found.join, found.log_dir, found.master_addr) == (True, "/a b/logs", "127.0.0.1")
    assert (found.task_script, found.task_script_args) == ("python3", ["-m", "a.module"])
    assert int(found.tail_worker_log) not in range(3)
    read = launch.read({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "3", "MS_NODE_ID": "0"}, words, 1)
    assert (read.workers_here, read.is_joined) == (3, True)


def test_a_port_is_held_for_the_scheduler_and_nobody_else_gets_it():
    held = [msrun._reserved_port() for _ in range(50)]
    ports = {one.getsockname()[1] for one in held}
    assert len(ports) == 50
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(held[0].getsockname())
    with socket.socket() as scheduler:
        scheduler.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        scheduler.bind(held[0].getsockname())
        scheduler.listen()
        socket.create_connection(held[0].getsockname(), 10).close()
    for one in held:
        one.close()


def test_the_interpreter_goes_by_a_name_that_msrun_takes(tmp_path):
    real, other = tmp_path / "python3.11", tmp_path / "other"
    real.touch()
    other.touch()
    (tmp_path / "python").symlink_to(other)  # as where several versions are installed
    with pytest.raises(ConfigError, match=r"neither is python3\.11; make a virtual environment: python3\.11 -m venv"):
        msrun.interpreter(str(real))
    (tmp_path / "python3").symlink_to(real)
    assert msrun.interpreter(str(real)) == ("python3", tmp_path)
    (tmp_path / "python").unlink()
    (tmp_path / "python").symlink_to(real)
    assert msrun.interpreter(str(real)) == ("python", tmp_path)


def test_msrun_searches_beside_the_interpreter_and_each_worker_counts_its_threads(monkeypatch):
    monkeypatch.setattr(msrun, "thread_limit", lambda: 4)
    given = {"PATH": "/usr/bin", "OPENBLAS_NUM_THREADS": "4", "OPENCV_FOR_THREADS_NUM": "2", "OMP_NUM_THREADS": "4"}
    assert msrun.environment(given, Path("/venv/bin")) == {
        "PATH": f"/venv/bin{os.pathsep}/usr/bin",
        "OPENCV_FOR_THREADS_NUM": "2",  # of the user
        "OMP_NUM_THREADS": "4",
    }


def test_the_task_reaches_each_worker_and_worker_0_prints_and_decides(run, tmp_path, capfd):
    end = run(
        f"open({str(tmp_path)!r} + f'/worker {{rank}}', 'w').close()\n"
        "print('said by', rank, flush=True)\n"
        "print('wrong', rank, file=sys.stderr)\n"
        "sys.exit(7 if rank == 0 else 0)"
    )
    assert end == (7, None)
    assert {path.name for path in tmp_path.glob("worker *")} == {"worker 0", "worker 1"}
    output = capfd.readouterr()
    assert (output.out, output.err) == ("said by 0\n", "wrong 0\n")
    assert "said by 1" in (tmp_path / "logs" / "msrun.log").read_text()


def test_an_interrupt_reaches_all_workers_and_one_that_is_killed_is_explained(run, tmp_path, monkeypatch):
    look = starter.Starter.look

    def interrupting(workers, seconds):
        look(workers, seconds)
        if len([*tmp_path.glob("ready *")]) == 2:
            monkeypatch.setattr(starter.Starter, "look", look)
            raise interrupts.Terminated(signal.SIGTERM)

    monkeypatch.setattr(starter.Starter, "look", interrupting)
    end = run(
        "try:\n"
        f"    open({str(tmp_path)!r} + f'/ready {{rank}}', 'w').close()\n"
        "    for _ in range(6000):\n"
        "        time.sleep(0.1)\n"
        "except interrupts.Terminated as end:\n"
        f"    open({str(tmp_path)!r} + f'/told {{rank}}', 'w').close()\n"
        "    sys.exit(128 + end.number)"
    )
    assert end == (143, None)
    assert len([*tmp_path.glob("told *")]) == 2
    end = run("import signal\nos.kill(os.getpid(), signal.SIGKILL if rank == 0 else signal.SIGTERM)")
    assert end.code == 1
    assert end.reason.startswith("worker 0 was ended by SIGKILL, as the system does when memory runs out; ")


def test_a_launcher_that_ends_before_its_workers_begin_is_quoted(run, tmp_path):
    (tmp_path / "launcher.py").write_text("import sys\nsys.exit('Address already in use')")
    end = run("")
    assert end.code == 1
    assert end.reason.startswith("msrun ended with exit code 1 before its workers began; see ")
    assert end.reason.endswith("msrun.log (Address already in use)")


def test_an_interrupt_before_the_workers_begin_ends_the_launcher(run, tmp_path, monkeypatch):
    (tmp_path / "launcher.py").write_text("import time\ntime.sleep(600)")
    monkeypatch.setattr(starter.Starter, "look", lambda workers, seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    began = time.monotonic()
    assert run("") == (130, "interrupted before the workers began")
    assert time.monotonic() - began < 500


def test_a_worker_whose_starter_is_gone_has_no_task(tmp_path):
    there = launch.Launch("worker", 1, 2, 2, False, 1)
    assert starter.connect(there, str(tmp_path / "socket")) is None
    assert starter.connect(there, None) is None
