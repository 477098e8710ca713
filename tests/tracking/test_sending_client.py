"""The training's end of the sending process: it passes on log lines and errors, and waits for nothing that hangs."""

import signal
import sys
import time

import pytest
from mlflow import MlflowClient
from sending_channel import end, open_channel
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal
from fcnlab.tracking import sending_client
from fcnlab.tracking.sending_client import LostError, SendingClient, wait_for

pytestmark = pytest.mark.usefixtures("forked_python")


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


@pytest.fixture
def hanging(monkeypatch):
    """A client of a process that shows once that it is alive, and answers nothing."""
    program = "import time; print('{\"alive\": true}', flush=True); time.sleep(600)"
    monkeypatch.setattr(sending_client, "_COMMAND", (sys.executable, "-c", program))
    client = SendingClient()
    while client.seconds_silent < 0:
        assert not client.is_lost
        time.sleep(0.01)
    yield client
    client.close()


def test_one_that_is_silent_is_ended_and_no_call_waits_for_it(hanging, monkeypatch, caplog):
    began = time.monotonic()
    calls = [hanging.open_channel().call("wake", text="x" * 10_000) for _ in range(30)]  # more than the pipe holds
    assert time.monotonic() - began < 60
    assert not hanging.is_lost
    monkeypatch.setattr(sending_client, "_SECONDS_OF_SILENCE", 0.5)
    with pytest.raises(LostError, match="was lost"):
        wait_for(calls[0])
    assert hanging.is_lost
    assert hanging._process.wait(10) == -signal.SIGKILL
    assert caplog.text.count("has been silent for 0.5 s, so it is ended") == 1
    assert all(isinstance(call.exception(0), LostError) for call in calls)
    with pytest.raises(LostError):
        wait_for(hanging.open_channel().call("wake"))


@pytest.mark.parametrize(
    ("given", "said"), [({"seconds": 0.3}, "has not answered within"), ({"silence": 0.3}, "silent")]
)
def test_who_waits_may_have_less_time(hanging, caplog, given, said):
    with pytest.raises(LostError):
        wait_for(hanging.open_channel().call("start"), **given)
    assert said in caplog.text


def test_closing_one_that_hangs_takes_no_longer_than_it_may(hanging, monkeypatch):
    monkeypatch.setattr(sending_client, "_SECONDS_OF_SILENCE_AT_CLOSE", 0.3)
    began = time.monotonic()
    hanging.close()
    assert time.monotonic() - began < 60
    assert hanging._process.poll() == -signal.SIGKILL


def test_one_that_lives_is_not_silent(tmp_path, uri, monkeypatch):
    client = open_channel(write_run(tmp_path / "run"), uri).client
    time.sleep(1.2)  # longer than between two signs of life
    assert 0 <= client.seconds_silent < 1.1
