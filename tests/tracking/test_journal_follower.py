"""A growing journal reaches the store soon, and is there as a whole at the end."""

import time

import pytest
from mlflow import MlflowClient
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording.journal import Journal
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


@pytest.mark.parametrize(("in_a_hurry", "left"), [(False, None), (True, "no time left")])
def test_a_slow_store_is_waited_for_unless_the_training_was_killed(tmp_path, uri, monkeypatch, in_a_hurry, left):
    follower = JournalFollower(write_run(tmp_path / "run"), uri, "study", interval=0.01)
    log_params = follower._store.log_params
    monkeypatch.setattr(follower._store, "log_params", lambda *given: (time.sleep(1.5), log_params(*given)))
    follower.start()
    assert follower.end("KILLED", 0.2, in_a_hurry) == left
