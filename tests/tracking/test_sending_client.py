"""The process that sends: it knows what this one knows, outlives nothing, and is not missed when it is gone."""

import os
import signal
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal
from fcnlab.tracking import sending_client
from fcnlab.tracking.sending_client import wait_for

OPENING = """
import os, sys, time
from fcnlab.tracking.sending_client import shared, wait_for

folder, uri, ending = sys.argv[1:]
upload = shared().open_channel()
wait_for(upload.call("open", folder=folder, directory=os.getcwd(), environment=dict(os.environ), uri=uri,
                     experiment="study", interval=1000.0))
print(wait_for(upload.call("start"))["run_id"], upload.process._process.pid, flush=True)
if ending == "exit":
    sys.exit()
time.sleep(600)
"""


def open_upload(folder, uri):
    upload = sending_client.shared().open_channel()
    where = {"folder": str(folder), "directory": os.getcwd(), "environment": dict(os.environ), "uri": uri}
    wait_for(upload.call("open", **where, experiment="study", interval=1000.0))
    return upload


def end(upload):
    return wait_for(upload.call("end", status="FINISHED", patience=30.0))


def begin_elsewhere(folder, uri, ending):
    """A process with an upload of its own; also the ids of its run and of the process that sends for it."""
    process = subprocess.Popen([sys.executable, "-c", OPENING, folder, uri, ending], stdout=subprocess.PIPE, text=True)
    run_id, sender = process.stdout.readline().split()
    return process, run_id, int(sender)


def wait_for_end(sender):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(sender, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the process that sends is left over")


@pytest.mark.parametrize("ending", ["exit", "killed"])
def test_a_training_that_could_not_say_how_it_ended_is_recorded_as_killed(tmp_path, uri, ending):
    folder = write_run(tmp_path / "run", end=None)
    process, run_id, sender = begin_elsewhere(folder, uri, ending)
    if ending == "killed":
        process.kill()
    process.communicate(timeout=60)
    wait_for_end(sender)
    check_whole(MlflowClient(uri), run_id, "KILLED")


def test_a_training_that_somebody_goes_on_with_already_is_not_ended(tmp_path, uri):
    folder = write_run(tmp_path / "run", end=None)
    process, run_id, sender = begin_elsewhere(folder, uri, "killed")
    gone_on_with = Journal(folder, go_on=True)
    process.kill()
    process.communicate(timeout=60)
    wait_for_end(sender)
    assert MlflowClient(uri).get_run(run_id).info.status == "RUNNING"
    gone_on_with.close()


def test_signals_are_for_the_one_that_trains(tmp_path, uri):
    upload = open_upload(write_run(tmp_path / "run"), uri)
    run_id = wait_for(upload.call("start"))["run_id"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(upload.process._process.pid, number)
    assert end(upload) is None
    check_whole(MlflowClient(uri), run_id)


def test_it_sends_where_this_process_would_at_that_moment(tmp_path, uri, monkeypatch):
    """A notebook may change its variables and its working directory between two trainings."""
    first = write_run(tmp_path / "first")
    open_upload(first, uri)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store.db").rename(tmp_path / "elsewhere" / "mine.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    upload = open_upload(write_run(tmp_path / "second"), None)
    run_id = wait_for(upload.call("start"))["run_id"]
    assert end(upload) is None
    check_whole(MlflowClient(f"sqlite:///{tmp_path / 'elsewhere' / 'mine.db'}"), run_id)


def test_its_log_lines_are_this_process_s(tmp_path, uri, caplog):
    folder = write_run(tmp_path / "run", end=None)
    written = Journal(folder, go_on=True)
    written.append("artifact", path="gone.txt", to=None)
    written.close()
    upload = open_upload(folder, uri)
    wait_for(upload.call("start"))
    assert end(upload) is None
    gone = [record for record in caplog.records if "gone.txt" in record.message]
    assert [(record.name, record.levelname, record.message) for record in gone] == [
        ("fcnlab.tracking.journal_sender", "WARNING", f"{folder / 'gone.txt'} is gone and cannot be sent")
    ]


def test_what_is_wrong_with_a_store_is_one_line(tmp_path, uri):
    (tmp_path / "notes.txt").write_text("no database " * 99)
    with pytest.raises(TrackingError, match=r"not a database; set tracking\.uri=\.\.\. or train without it"):
        open_upload(write_run(tmp_path / "run"), f"sqlite:///{tmp_path / 'notes.txt'}")


def test_a_bug_is_no_end(tmp_path, uri, caplog):
    upload = open_upload(write_run(tmp_path / "run"), uri)
    with pytest.raises(TrackingError, match="a bug in the upload, see the log: TypeError"):
        wait_for(upload.call("wake", seconds=3))
    assert "Traceback" in caplog.text
    wait_for(upload.call("start"))
    assert end(upload) is None


def test_one_process_serves_until_it_is_lost(tmp_path, uri, caplog):
    process = sending_client.shared()
    assert sending_client.shared() is process
    upload = open_upload(write_run(tmp_path / "run"), uri)
    process._process.kill()
    process._reader.join(10)
    with pytest.raises(TrackingError, match="was lost"):
        wait_for(upload.call("wake"))
    assert "was lost (exit code -9)" in caplog.text
    assert sending_client.shared() is not process
    upload = open_upload(tmp_path / "run", uri)
    run_id = wait_for(upload.call("start"))["run_id"]
    assert end(upload) is None
    check_whole(MlflowClient(uri), run_id)
    assert journal.sent_to(tmp_path / "run") == run_id
