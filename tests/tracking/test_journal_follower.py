"""A growing journal reaches the store soon, and is there as a whole at the end."""

import threading
import time
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording.journal import Journal
from fcnlab.tracking import journal_follower
from fcnlab.tracking.journal_follower import JournalFollower


def wait_until_sent(follower):
    deadline = time.monotonic() + 60
    while follower.unsent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not follower.unsent


def test_what_is_woken_for_is_not_left_for_the_end(tmp_path, uri):
    folder = write_run(tmp_path / "run", end=None)
    follower = JournalFollower(folder, uri, "study", interval=1000.0)
    run_id = follower.start()["run_id"]
    written = Journal(folder, exist_ok=True)
    wait_until_sent(follower)
    written.append("tags", values={"evaluated": "yes"})
    follower.wake()
    wait_until_sent(follower)
    follower.wake(interval=0.01)
    for name in ("first", "second"):  # nobody calls `wake` for these
        written.append("tags", values={name: "yes"})
        wait_until_sent(follower)
    written.append("end", status="finished")
    written.close()
    assert follower.end("FINISHED", 30.0) is None
    check_whole(MlflowClient(uri), run_id)
    assert MlflowClient(uri).get_run(run_id).data.tags["second"] == "yes"


def test_a_journal_without_an_end_ends_as_it_is_told(tmp_path, uri):
    follower = JournalFollower(write_run(tmp_path / "run", end=None), uri, "study", interval=1000.0)
    run_id = follower.start()["run_id"]
    assert follower.end("KILLED", 30.0, in_a_hurry=True) is None
    check_whole(MlflowClient(uri), run_id, "KILLED")


def test_a_store_that_goes_away_is_said_once_and_waited_for_only_so_long(tmp_path, uri, monkeypatch, caplog):
    follower = JournalFollower(write_run(tmp_path / "run"), uri, "study", interval=0.01)

    def refuse(*_, **__):
        raise TrackingError("connection refused")

    monkeypatch.setattr(follower._store, "log_metrics", refuse)
    follower.start()
    time.sleep(1.5)  # for a second attempt
    began = time.monotonic()
    assert follower.end("FINISHED", 0.5) == "connection refused"
    assert time.monotonic() - began < 30
    assert caplog.text.count("connection refused; the training continues") == 1


@pytest.fixture
def clock(monkeypatch):
    """The follower's clock, which moves only when a test moves it, so that a busy machine changes nothing."""
    now = [1000.0]
    monkeypatch.setattr(journal_follower, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_slow_store_is_waited_for(tmp_path, uri, monkeypatch, clock):
    follower = JournalFollower(write_run(tmp_path / "run"), uri, "study", interval=0.01)
    log_params = follower._store.log_params

    def slow(*given):
        clock[0] += 0.8
        log_params(*given)

    monkeypatch.setattr(follower._store, "log_params", slow)
    follower.start()
    assert follower.end("KILLED", 0.2) is None


def test_a_slow_store_is_not_waited_for_after_a_kill(tmp_path, uri, monkeypatch):
    follower = JournalFollower(write_run(tmp_path / "run"), uri, "study", interval=0.01)
    answer, log_params = threading.Event(), follower._store.log_params
    monkeypatch.setattr(follower._store, "log_params", lambda *given: (answer.wait(60), log_params(*given)))
    follower.start()
    assert follower.end("KILLED", 0.2, in_a_hurry=True) == "no time left"
    answer.set()


def write_tags(folder, count):
    """Write a journal whose every entry is a request of its own."""
    written = Journal(folder)
    written.append("run", journal="a" * 32, experiment="study", name="a run", tags={}, params={"seed": 1})
    for number in range(count):
        written.append("tags", values={"number": str(number)})
    written.close()
    return folder


def test_a_store_that_is_back_gets_everything_however_long_that_takes(tmp_path, uri, monkeypatch, caplog, clock):
    caplog.set_level("INFO")
    follower = JournalFollower(write_tags(tmp_path / "run", 8), uri, "study", interval=0.01)
    down, set_tags = [True], follower._store.set_tags

    def flaky(*given):
        if down[0]:
            raise TrackingError("503")
        clock[0] += 0.9
        set_tags(*given)

    monkeypatch.setattr(follower._store, "set_tags", flaky)
    run_id = follower.start()["run_id"]
    time.sleep(0.2)
    down[0] = False
    assert follower.end("FINISHED", patience=0.7) is None
    assert MlflowClient(uri).get_run(run_id).data.tags["number"] == "7"
    assert caplog.text.index("the tracking store is back") < caplog.text.index(
        "the tracking store has everything again"
    )


@pytest.mark.parametrize("seconds", [1.3, 30])
def test_a_store_that_takes_too_long_is_not_waited_for_to_the_end(tmp_path, uri, monkeypatch, seconds):
    follower = JournalFollower(write_tags(tmp_path / "run", 50), uri, "study", interval=0.01)
    set_tags = follower._store.set_tags
    monkeypatch.setattr(follower._store, "set_tags", lambda *given: (time.sleep(seconds), set_tags(*given)))
    follower.start()
    began = time.monotonic()
    assert follower.end("FINISHED", 0.5) == f"tracking store {uri}: takes too long to answer"
    assert time.monotonic() - began < 30
