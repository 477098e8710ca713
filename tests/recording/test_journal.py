"""The journal holds what was written, whatever a crash does to its end."""

import errno
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.core.errors import TrackingError
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal


def test_what_was_written_is_read_in_order(tmp_path):
    written = Journal(tmp_path / "run")
    written.append("run", name="ä\n\u2028 'x'")
    for step in (1, 2, 3):
        written.append("metrics", step=step, values={"train/loss": step / 3, "val/iou/cell": math.nan})
    written.close()
    entries = list(journal.read(written.path))
    assert [entry.kind for entry in entries] == ["run", "metrics", "metrics", "metrics"]
    assert entries[0].fields["name"] == "ä\n\u2028 'x'"
    assert [entry.fields["values"]["train/loss"] for entry in entries[1:]] == [1 / 3, 2 / 3, 1.0]
    assert math.isnan(entries[1].fields["values"]["val/iou/cell"])
    assert [entry.fields["time"] for entry in entries] == sorted(entry.fields["time"] for entry in entries)


def test_reading_goes_on_where_it_stopped(tmp_path):
    written = Journal(tmp_path)
    for number in range(5):
        written.append("tags", number=number)
    second = list(journal.read(written.path))[1]
    assert [entry.fields["number"] for entry in journal.read(written.path, second.end)] == [2, 3, 4]
    written.append("tags", number=5)
    last = list(journal.read(written.path, second.end))[-1]
    assert last.fields["number"] == 5
    assert last.end == written.path.stat().st_size


@given(st.integers(min_value=0, max_value=400))
def test_a_journal_cut_anywhere_gives_its_whole_lines(tmp_path_factory, length):
    folder = tmp_path_factory.mktemp("cut")
    written = Journal(folder)
    for number in range(4):
        written.append("tags", number=number, text="é" * number)
    written.close()
    whole = list(journal.read(written.path))
    os.truncate(written.path, min(length, written.path.stat().st_size))
    size = written.path.stat().st_size
    assert list(journal.read(written.path)) == [entry for entry in whole if entry.end <= size]


def test_a_damaged_line_costs_only_itself(tmp_path, caplog):
    written = Journal(tmp_path)
    for number in range(3):
        written.append("tags", number=number)
    data = bytearray(written.path.read_bytes())
    data[len(data) // 2] = 0xFF
    written.path.write_bytes(data)
    assert [entry.fields["number"] for entry in journal.read(written.path)] == [0, 2]
    assert "damaged" in caplog.text


def test_a_folder_that_holds_a_training_is_not_written_over(tmp_path):
    Journal(tmp_path).close()
    with pytest.raises(TrackingError, match=r"already holds a training.*hydra\.run\.dir"):
        Journal(tmp_path)


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    written = Journal(tmp_path)
    written.append("tags", number=0)
    real, calls = os.write, []

    def full(file, data):
        if calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(1)
        return real(file, data[:7])

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.raises(TrackingError, match=r"No space left.*free space"):
        written.append("tags", number=1)
    monkeypatch.undo()
    written.append("tags", number=2)
    assert [entry.fields["number"] for entry in journal.read(written.path)] == [0, 2]


def test_a_journal_is_not_being_written_after_a_crash(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from fcnlab.recording.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    assert journal.is_being_written(tmp_path)
    process.kill()
    process.communicate()
    assert not journal.is_being_written(tmp_path)


def test_history_is_each_metric_with_its_steps(tmp_path):
    written = Journal(tmp_path)
    written.append("metrics", step=1, values={"train/loss": 2.0})
    written.append("tags", values={})
    written.append("metrics", step=2, values={"train/loss": 1.0, "val/loss": 3.0})
    assert journal.history(written.path) == {"train/loss": [(1, 2.0), (2, 1.0)], "val/loss": [(2, 3.0)]}
