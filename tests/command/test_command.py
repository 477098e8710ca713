"""Every command ends alike: with an exit code that says why, and one line."""

import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from fcnlab import command
from fcnlab.config.command_names import COMMANDS
from fcnlab.core import interrupts, memory
from fcnlab.core.launch import Launch


@pytest.fixture
def ended(monkeypatch, capsys):
    """A function that runs a command which raises an error, and returns its exit code and its line."""
    monkeypatch.setattr(interrupts, "install", lambda: None)

    def run(error):
        def fail():
            raise error

        with pytest.raises(SystemExit) as caught:
            command.run(fail)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return caught.value.code, err.strip()

    return run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (interrupts.Terminated(signal.SIGTERM), 143, "terminated"),
        (interrupts.Terminated(signal.SIGHUP), 129, "the terminal was closed"),
    ],
)
def test_a_signal(ended, error, code, line):
    assert ended(error) == (code, f"fcnlab: {line}")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Memory isn't enough"), OSError(12, "Cannot allocate")])
def test_memory_that_has_run_out(ended, error, monkeypatch):
    assert ended(error) == (1, f"fcnlab: {command.OUT_OF_MEMORY}")
    monkeypatch.setattr(memory, "address_space_left", lambda: 3 * 2**20)
    assert ended(error)[1].startswith("fcnlab: out of memory (ulimit -v leaves 3 MiB): free some")


def bug():
    raise RuntimeError("a bug")


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(interrupts, "install", lambda: None)
    with pytest.raises(RuntimeError, match="a bug"):
        command.run(bug)


@pytest.mark.parametrize(("rank", "says", "waits"), [(0, True, 0), (None, True, 0), (1, False, 1)])
def test_before_workers_have_met_the_first_one_speaks_and_the_others_end_after_it(
    ended_by_leave, monkeypatch, rank, says, waits
):
    monkeypatch.setattr("fcnlab.core.launch.current", lambda: Launch("worker", rank, 2, 2, True, 1))
    line, slept = ended_by_leave("trainer.batch_size=0: must be at least 1")
    assert line == ("fcnlab: trainer.batch_size=0: must be at least 1\n" if says else "")
    assert slept == waits


@pytest.fixture
def ended_by_leave(monkeypatch, capsys):
    """A function that leaves with a reason, and returns what was printed and how often was waited."""
    wait = Mock()
    monkeypatch.setattr("fcnlab.command.leaving.time", SimpleNamespace(sleep=wait))
    monkeypatch.setattr(interrupts, "take_no_more", lambda: None)

    def leave(reason):
        with pytest.raises(SystemExit):
            command.leave(command.EXIT_ERROR, reason)
        return capsys.readouterr().err, wait.call_count

    return leave


MASKS = """
import sys
from importlib import import_module
from pathlib import Path
from fcnlab import command

for name in sys.argv[1:]:
    import_module(f"fcnlab.{name}")
sys.argv[1:] = []
assert "numpy" not in sys.modules  # it would start threads, as many as there are processors

def show():
    import numpy
    import mindspore
    for task in Path("/proc/self/task").iterdir():
        fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        print(int(fields["SigBlk"], 16))

command.run(show)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads what Linux says of threads")
def test_no_thread_but_the_one_for_signals_takes_any():
    """Otherwise the kernel may choose that one, again and again."""
    words = [sys.executable, "-c", MASKS, *COMMANDS, "experiment.worker", "sweeps.process"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800, check=True)
    blocked = [int(mask) for mask in done.stdout.split()]
    signals = sum(1 << (number - 1) for number in (signal.SIGINT, signal.SIGTERM))  # nohup ignores SIGHUP
    assert len(blocked) >= 2
    assert sum(mask & signals != signals for mask in blocked) == 1, [hex(mask) for mask in blocked]
