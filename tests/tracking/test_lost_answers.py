"""A journal has one run, whatever becomes of the answers of a server."""

import threading

import pytest
from fake_server import FakeServer
from written_journal import STEPS, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.tracking.journal_follower import JournalFollower
from fcnlab.tracking.store import Store


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with FakeServer() as server:
        yield server


def late(server, name, seconds=1.5, moment="after"):
    """Let the first request of a kind be answered, or be worked on, after the client has given up."""
    first, waiting = [True], threading.Event()

    def wait(asked):
        if asked == name and first:
            first.clear()
            waiting.wait(seconds)

    setattr(server, moment, wait)


def test_an_answer_that_is_late_makes_no_second_run(server):
    late(server, "runs/create")
    store = Store(server.uri)
    with pytest.raises(TrackingError, match="time"):
        store.open_run("a" * 32, "study", "a run", {}, 0)
    assert server.requests.count("runs/create") == 1
    assert store.open_run("a" * 32, "study", "a run", {}, 0) == next(iter(server.runs))
    assert len(server.runs) == 1


def test_a_training_goes_on_and_its_run_is_found_again(server, tmp_path):
    late(server, "runs/create")
    follower = JournalFollower(write_journal(tmp_path), server.uri, "study", interval=0.1)
    assert follower.start()["run_id"] is None
    assert follower.end("FINISHED", 20.0) is None
    (run,) = server.runs.values()
    assert follower.where()["run_id"] == run["info"]["run_id"]
    assert run["info"]["status"] == "FINISHED"
    losses = [point["step"] for point in run["data"]["metrics"] if point["key"] == "train/loss"]
    assert losses == list(range(1, STEPS + 1))


def test_a_run_that_the_server_makes_after_it_was_asked_again_is_deleted(server, tmp_path):
    late(server, "runs/create", 2.5, moment="before")
    follower = JournalFollower(write_journal(tmp_path, end=None), server.uri, "study", interval=0.1)
    follower.start()
    for _ in range(600):
        if len(server.runs) == 2:
            break
        threading.Event().wait(0.02)
    assert follower.end("FINISHED", 20.0) is None
    kept, surplus = sorted(server.runs.values(), key=lambda run: run["info"]["lifecycle_stage"])
    assert (kept["info"]["lifecycle_stage"], kept["info"]["status"]) == ("active", "FINISHED")
    assert kept["data"]["metrics"]
    assert (surplus["info"]["lifecycle_stage"], surplus["info"]["status"]) == ("deleted", "KILLED")


def test_a_run_of_the_same_journal_that_holds_something_is_kept(server):
    store = Store(server.uri)
    first = store.open_run("a" * 32, "study", "a run", {}, 0)
    store.log_params(first, {"seed": 1})
    store._client.create_run("1", tags=tags_of(server, first))
    second = list(server.runs)[1]
    store.log_params(second, {"seed": 2})
    store.end_surplus(first)
    assert len(server.active()) == 2


def tags_of(server, run_id):
    return {tag["key"]: tag["value"] for tag in server.runs[run_id]["data"]["tags"]}


def write_journal(folder, end="finished"):
    """Write a journal without pictures and files, for which the fake server has no place."""
    run = write_run(folder / "run", end=end)
    path = run / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"kind":"image"' not in line and '"kind":"artifact"' not in line))
    return run
