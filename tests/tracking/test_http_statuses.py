"""What a server, or a proxy before it, answers is told apart: refused for good, to be tried again, or deleted."""

import json

import pytest
from fake_server import FakeServer

from fcnlab.core.errors import MissingError, RefusedError, TrackingError
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal
from fcnlab.tracking.journal_sender import JournalSender, RunDeletedError
from fcnlab.tracking.store import Store

HTML = "<html>from a proxy</html>"
GONE = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with FakeServer() as server:
        yield server


@pytest.fixture
def sender(server, tmp_path):
    """A sender of a journal with files, parameters, metrics and an end."""
    folder = tmp_path / "run"
    written = Journal(folder)
    (folder / "figures").mkdir()
    for name in ("big", "small", "figures/big", "figures/small"):
        (folder / name).write_bytes(b"1" * 1000)
    written.append("run", journal="a" * 32, experiment="study", name="a run", tags={}, params={"good": 1, "bad": 2})
    for name in ("big", "figures", "small"):
        written.append("artifact", path=name, to=None if name != "figures" else "figures")
    written.append("metrics", step=1, values={"loss": 1.0})
    written.append("end", status="finished")
    written.close()
    made = JournalSender(folder, Store(server.uri))
    yield made
    made.close()


def answering(server, part, *answer):
    server.before = lambda name: answer if part in name else None


def test_a_file_that_is_too_large_is_left_out_and_named(server, sender, caplog):
    answering(server, "/big", 413, HTML)
    sender.open()
    sender.advance()
    (run,) = server.runs.values()
    assert run["info"]["status"] == "FINISHED"
    assert [point["key"] for point in run["data"]["metrics"]] == ["loss"]
    assert server.artifacts == ["0/figures/small", "0/small"]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2
    assert f"{sender.folder / 'big'} (0.0 MiB) is left out: " in lines[0]
    assert f"{sender.folder / 'figures' / 'big'} (0.0 MiB) is left out: " in lines[1]
    assert all("client_max_body_size sets the limit" in line and HTML not in line for line in lines)


@pytest.mark.parametrize("status", [400, 405, 413, 431, 501])
def test_what_would_be_refused_again_is_not_tried_again(server, sender, status, caplog):
    answering(server, "log-batch", status, HTML)
    sender.open()
    sender.advance()
    assert sender.ended
    assert "it is missing there, and kept in" in caplog.text


@pytest.mark.parametrize("part", ["log-batch", "/big"])
def test_what_may_change_is_tried_again(server, sender, part):
    sender.open()
    for status in (401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 507):
        answering(server, part, status, HTML)
        with pytest.raises(TrackingError) as caught:
            sender.advance()
        assert not isinstance(caught.value, RefusedError)
    server.before = lambda name: None
    sender.advance()
    assert sender.ended
    assert len(server.artifacts) == 4


def test_a_run_that_mlflow_does_not_know_was_deleted(server, sender):
    sender.open()
    server.before = lambda name: (404, GONE)
    with pytest.raises(RunDeletedError):
        sender.advance()
    with pytest.raises(MissingError):
        sender.store.tag(sender.run_id, "host")


def test_a_proxy_whose_server_is_away_says_nothing_about_the_run(server, sender):
    sender.open()
    server.before = lambda name: (404, HTML)
    with pytest.raises(TrackingError) as caught:
        sender.store.is_deleted(sender.run_id)
    assert not isinstance(caught.value, RefusedError)


def test_a_parameter_that_is_refused_costs_no_other(server, sender, caplog):
    log_params = sender.store.log_params

    def checked(run_id, params):
        if "bad" in params:
            raise RefusedError("the value is too strange")
        log_params(run_id, params)

    sender.store.log_params = checked
    sender.open()
    sender.advance()
    (run,) = server.runs.values()
    assert [param["key"] for param in run["data"]["params"]] == ["good"]
    assert "parameter bad: the value is too strange; it is missing there" in caplog.text
    assert journal.read_position(sender.folder)["ended"]
