"""Every command ends alike: with an exit code that says why, and one line."""

import signal

import pytest

from fcnlab import command
from fcnlab.core import interrupts, memory


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
