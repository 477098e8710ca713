"""The sending process takes over the state of the training's process, and outlives it only to send the rest."""

import os
import signal
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient
from sending_channel import end, open_channel
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording.journal import Journal
from fcnlab.tracking.sending_client import wait_for

pytestmark = pytest.mark.usefixtures("forked_python")

BEGIN_AND_WAIT = """
import os, sys, time
from fcnlab.tracking.sending_client import shared, wait_for

folder, uri, ending = sys.argv[1:]
channel = shared().open_channel()
wait_for(channel.call("open", folder=folder, directory=os.getcwd(), environment=dict(os.environ), uri=uri,
                     experiment="study", interval=1000.0))
print(wait_for(channel.call("start"))["run_id"], channel.client._process.pid, flush=True)
if ending == "exit":
    sys.exit()
time.sleep(600)
"""


def begin_elsewhere(folder, uri, ending):
    """Start a process with a channel; return it, the id of its run and the id of its sending process."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN_AND_WAIT, folder, uri, ending], stdout=subprocess.PIPE, text=True
    )
    run_id, sender = process.stdout.readline().split()
    return process, run_id, int(sender)


def wait_for_end(sender):
    deadline = time.monotonic() + 300  # for a process that hangs, not for a slow machine
    while time.monotonic() < deadline:
        try:
            os.kill(sender, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the sending process is left over")


@pytest.mark.parametrize("ending", ["exit", "killed"])
def test_a_training_that_does_not_say_how_it_ended_is_recorded_as_killed(tmp_path, uri, ending):
    folder = write_run(tmp_path / "run", end=None)
    process, run_id, sender = begin_elsewhere(folder, uri, ending)
    if ending == "killed":
        process.kill()
    process.communicate(timeout=1800)
    wait_for_end(sender)
    check_whole(MlflowClient(uri), run_id, "KILLED")


def test_no_temporary_file_stays_of_a_request_that_the_end_cut_off(monkeypatch, tmp_path, uri):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    process, _, sender = begin_elsewhere(write_run(tmp_path / "run", end=None), uri, "killed")
    (folder,) = (tmp_path / "temporary").glob("fcnlab-sending-*")
    (folder / "of a request").mkdir()
    process.kill()
    process.communicate(timeout=600)
    wait_for_end(sender)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_training_that_is_being_resumed_already_is_not_ended(tmp_path, uri):
    folder = write_run(tmp_path / "run", end=None)
    process, run_id, sender = begin_elsewhere(folder, uri, "killed")
    resumed = Journal(folder, exist_ok=True)
    process.kill()
    process.communicate(timeout=1800)
    wait_for_end(sender)
    assert MlflowClient(uri).get_run(run_id).info.status == "RUNNING"
    resumed.close()


def test_signals_are_for_the_one_that_trains(tmp_path, uri):
    channel = open_channel(write_run(tmp_path / "run"), uri)
    run_id = wait_for(channel.call("start"))["run_id"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(channel.client._process.pid, number)
    assert end(channel) is None
    check_whole(MlflowClient(uri), run_id)


def test_it_sends_where_this_process_would_at_that_moment(tmp_path, uri, monkeypatch):
    """A notebook may change its environment and its working directory between two trainings."""
    first = write_run(tmp_path / "first")
    open_channel(first, uri)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store.db").rename(tmp_path / "elsewhere" / "mine.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    channel = open_channel(write_run(tmp_path / "second"), None)
    run_id = wait_for(channel.call("start"))["run_id"]
    assert end(channel) is None
    check_whole(MlflowClient(f"sqlite:///{tmp_path / 'elsewhere' / 'mine.db'}"), run_id)


def test_a_bug_is_no_end(tmp_path, uri, caplog):
    channel = open_channel(write_run(tmp_path / "run"), uri)
    with pytest.raises(TrackingError, match="a bug in the sending process, see the log: TypeError"):
        wait_for(channel.call("wake", seconds=3))
    assert "Traceback" in caplog.text
    wait_for(channel.call("start"))
    assert end(channel) is None
