"""A journal reaches a store whole and each thing once, whatever happens to the store in between."""

import json
import shutil
import threading
from contextlib import suppress

import pytest
from mlflow import MlflowClient
from written_journal import check_whole, write_run

from fcnlab.core.errors import TrackingError
from fcnlab.recording import journal
from fcnlab.recording.journal import Journal
from fcnlab.tracking.journal_sender import JournalSender, RunDeletedError, sync
from fcnlab.tracking.store import Store


class FlakyStore(Store):
    """Fails every second request, in turn before the request is made and after it, when its answer is lost."""

    def __init__(self, uri):
        super().__init__(uri)
        self.requests = 0

    def __getattribute__(self, name):
        attribute = super().__getattribute__(name)
        if not name.startswith(("log_", "set_", "end_", "open_run")):
            return attribute

        def flaky(*arguments, **named):
            self.requests += 1
            if self.requests % 4 == 1:
                raise TrackingError("connection refused")
            result = attribute(*arguments, **named)
            if self.requests % 4 == 3:
                raise TrackingError("connection reset")
            return result

        return flaky


@pytest.mark.parametrize("kind", ["database", "files"])
def test_an_unreliable_store_ends_with_everything_once(tmp_path, uri, kind, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr("fcnlab.tracking.journal_sender._BATCH", 7)
    uri = uri if kind == "database" else (tmp_path / "files").as_uri()
    folder = write_run(tmp_path / "run")
    store, failures = FlakyStore(uri), 0
    sender = JournalSender(folder, store)
    while sender.unsent or not sender.ended:
        try:
            run_id = sender.open()
            sender.advance()
        except TrackingError:
            failures += 1
    sender.close()
    assert failures > 10
    client = MlflowClient(uri)
    check_whole(client, run_id)
    assert len(client.search_runs([client.get_experiment_by_name("study").experiment_id])) == 1


def test_another_process_goes_on_where_one_was_killed(tmp_path, uri, monkeypatch):
    monkeypatch.setattr("fcnlab.tracking.journal_sender._BATCH", 7)
    folder = write_run(tmp_path / "run")
    for requests in range(0, 12, 3):

        class Dying(Store):
            def log_metrics(self, *arguments, left=[requests], **named):  # noqa: B006
                if not left[0]:
                    raise SystemExit
                left[0] -= 1
                super().log_metrics(*arguments, **named)

        sender = JournalSender(folder, Dying(uri))
        sender.open()
        with suppress(SystemExit):
            sender.advance()
        sender._lock.release()  # as the operating system does
    check_whole(MlflowClient(uri), sync(folder, uri))


def test_sync_again_changes_nothing_and_another_store_gets_its_own(tmp_path, uri, empty_store):
    folder = write_run(tmp_path / "run")
    first = sync(folder, uri)
    assert sync(folder) == first  # without a URI: where it was begun
    other = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'other.db')}"
    check_whole(MlflowClient(other), sync(folder, other))
    check_whole(MlflowClient(uri), first)


def test_a_training_that_was_killed_is_recorded_as_killed(tmp_path, uri):
    check_whole(MlflowClient(uri), sync(write_run(tmp_path / "run", end=None), uri), "KILLED")


def test_what_cannot_be_sent_costs_nothing_else(tmp_path, uri, caplog):
    folder = write_run(tmp_path / "run", end=None)
    with (folder / journal.FILE).open("a") as file:
        for kind, fields in (
            ("metrics", {"step": 99, "values": {"../refused": 1.0, "fine": 2.0}}),
            ("artifact", {"path": "gone.txt", "to": None}),
            ("unknown", {}),
            ("metrics", {"step": 5}),
            ("tags", {"values": "none"}),
            ("end", {"status": "unheard of"}),
            ("end", {"status": "failed"}),
        ):
            file.write(json.dumps({"kind": kind, "time": 1, **fields}) + "\n")
    client = MlflowClient(uri)
    run_id = sync(folder, uri)
    check_whole(client, run_id, "FAILED")
    assert client.get_run(run_id).data.metrics["fine"] == 2.0
    assert "gone.txt is gone" in caplog.text
    assert "../refused" in caplog.text
    damaged = [record.args[1] for record in caplog.records if "is damaged and was skipped" in record.message]
    assert damaged == ["metrics", "tags", "end"]


def test_a_store_that_was_made_anew_gets_everything_again(tmp_path, uri, empty_store, caplog):
    folder = write_run(tmp_path / "run")
    first = sync(folder, uri)
    shutil.copy(empty_store, tmp_path / "again.db")
    MlflowClient(uri)._tracking_client.store.engine.dispose()
    (tmp_path / "again.db").replace(tmp_path / "store.db")
    again = sync(folder)
    assert again != first
    assert f"{uri}: does not know run {first}, as if it had been made anew" in caplog.text
    check_whole(MlflowClient(uri), again)
    caplog.clear()
    assert sync(folder) == again
    MlflowClient(uri).delete_run(again)
    assert sync(folder) == again  # nothing is left to send, and what somebody deleted does not come back
    assert not caplog.text


def test_a_deleted_run_is_said_to_be_deleted(tmp_path, uri):
    folder = write_run(tmp_path / "run")
    sender = JournalSender(folder, Store(uri))
    MlflowClient(uri).delete_run(sender.open())
    with pytest.raises(RunDeletedError, match="was deleted"):
        sender.advance()


def test_a_journal_is_sent_by_one_process_at_a_time(tmp_path, uri, monkeypatch):
    folder = write_run(tmp_path / "run")
    sender = JournalSender(folder, Store(uri))
    monkeypatch.setattr("fcnlab.tracking.journal_sender._SECONDS_FOR_ANOTHER", 0.2)
    with pytest.raises(TrackingError, match="another process"):
        sync(folder, uri)
    sender.close()
    sync(folder, uri)


def test_one_that_is_about_to_end_is_waited_for(tmp_path, uri):
    folder = write_run(tmp_path / "run")
    sender = JournalSender(folder, Store(uri))
    run_id = sender.open()

    def send_and_end():
        sender.advance()
        sender.close()

    threading.Timer(0.5, send_and_end).start()
    assert sync(folder, uri) == run_id
    check_whole(MlflowClient(uri), run_id)


def test_a_running_training_is_left_alone(tmp_path, uri):
    written = Journal(tmp_path / "run")
    with pytest.raises(TrackingError, match="still running"):
        sync(tmp_path / "run", uri)
    written.close()


def test_a_folder_without_a_journal_is_one_line(tmp_path):
    with pytest.raises(TrackingError, match=r"holds no journal\.jsonl"):
        sync(tmp_path)


def test_a_journal_of_something_else_is_one_line(tmp_path, uri):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / journal.FILE).write_text('{"kind": "run", "time": 1}\n')
    with pytest.raises(TrackingError, match="its run has no 'journal'; nothing can be sent"):
        sync(tmp_path / "run", uri)


def test_a_store_with_a_password_is_not_written_down(tmp_path, uri, monkeypatch):
    folder = write_run(tmp_path / "run")

    class Protected(Store):
        def __init__(self, given):
            super().__init__(uri)
            self.uri = given

    monkeypatch.setattr("fcnlab.tracking.journal_sender.Store", Protected)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:secret@host/db")
    first = sync(folder)
    assert not [path for path in folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert sync(folder) == first
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    with pytest.raises(TrackingError, match=r"postgresql://user:\*\*\*@host/db; set MLFLOW_TRACKING_URI"):
        sync(folder)
