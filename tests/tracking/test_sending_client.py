"""The training's end of the sending process: it passes on log lines and errors, and replaces a process that is lost."""

import pytest
from mlflow import MlflowClient
from sending_channel import end, open_channel
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal
from fcnlab.tracking import sending_client
from fcnlab.tracking.sending_client import wait_for


def test_its_log_lines_are_this_process_s(tmp_path, uri, caplog):
    folder = write_run(tmp_path / "run", end=None)
    written = Journal(folder, exist_ok=True)
    written.append("artifact", path="gone.txt", to=None)
    written.close()
    channel = open_channel(folder, uri)
    wait_for(channel.call("start"))
    assert end(channel) is None
    gone = [record for record in caplog.records if "gone.txt" in record.message]
    assert [(record.name, record.levelname, record.message) for record in gone] == [
        ("fcnlab.tracking.journal_sender", "WARNING", f"{folder / 'gone.txt'} is gone and cannot be sent")
    ]


def test_what_is_wrong_with_a_store_is_one_line(tmp_path, uri):
    (tmp_path / "notes.txt").write_text("no database " * 99)
    with pytest.raises(TrackingError, match=r"not a database; set tracking\.uri=\.\.\. or train without it"):
        open_channel(write_run(tmp_path / "run"), f"sqlite:///{tmp_path / 'notes.txt'}")


def test_one_process_serves_until_it_is_lost(tmp_path, uri, caplog):
    process = sending_client.shared()
    assert sending_client.shared() is process
    channel = open_channel(write_run(tmp_path / "run"), uri)
    process._process.kill()
    process._reader.join(10)
    with pytest.raises(TrackingError, match="was lost"):
        wait_for(channel.call("wake"))
    assert "was lost (exit code -9)" in caplog.text
    assert sending_client.shared() is not process
    channel = open_channel(tmp_path / "run", uri)
    run_id = wait_for(channel.call("start"))["run_id"]
    assert end(channel) is None
    check_whole(MlflowClient(uri), run_id)
    assert journal.sent_to(tmp_path / "run") == run_id
