"""A journal reaches a store whole, each thing once, whatever happens to the store in between."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import cv2
import numpy as np
import pytest
from local_server import tracking_server
from mlflow import MlflowClient

import fcnlab
from fcnlab.errors import TrackingError
from fcnlab.tracking import journal, upload
from fcnlab.tracking.journal import Journal
from fcnlab.tracking.store import Store
from fcnlab.tracking.upload import RunDeletedError, Uploader, sync
from fcnlab.training.callbacks import Callback

STEPS = 30


def write_run(folder, *, end="finished"):
    """A journal with one of everything but a model."""
    written = Journal(folder)
    written.append(
        "run",
        journal=f"id-of-{folder.name}",
        experiment="study",
        name="a run",
        tags={"host": "here"},
        params={"seed": 3},
    )
    dataset = {"name": "cells", "digest": "0123", "source": "made", "context": "training", "profile": "{}"}
    written.append("inputs", datasets=[dataset])
    for step in range(1, STEPS + 1):
        written.append("metrics", step=step, values={"train/loss": 1 / step, "train/learning_rate": 0.1})
        if step % 10 == 0:
            path = folder / f"{step}.png"
            cv2.imwrite(str(path), np.full((8, 8, 3), step, np.uint8))
            written.append("image", path=path.name, key="overlay/a", step=step)
    (folder / "config.yaml").write_text("seed: 3\n")
    written.append("artifact", path="config.yaml", to=None)
    written.append("tags", values={"mlflow.note.content": "from_run={run_id}"})
    if end:
        written.append("end", status=end)
    written.close()
    return folder


def losses(client, run_id):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, "train/loss")]


def check_whole(client, run_id, status="FINISHED"):
    run = client.get_run(run_id)
    assert run.info.status == status
    assert losses(client, run_id) == [(step, 1 / step) for step in range(1, STEPS + 1)]
    assert run.data.params == {"seed": "3"}
    assert run.data.tags["mlflow.note.content"] == f"from_run={run_id}"
    assert [item.dataset.digest for item in run.inputs.dataset_inputs] == ["0123"]
    assert sorted(item.path for item in client.list_artifacts(run_id)) == ["config.yaml", "images"]
    assert len(client.list_artifacts(run_id, "images")) == 2 * STEPS // 10  # a picture and a thumbnail each


def test_a_picture_is_stored_as_it_was_written_with_a_thumbnail(tmp_path, store_at):
    picture = np.random.default_rng(0).integers(0, 256, (300, 600, 3), np.uint8)
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), picture)
    store = Store(store_at)
    run_id = store.open_run("journal", "study", "a run", {}, 1)
    store.log_image(run_id, path, "overlay/a", 7, 1000)
    client = MlflowClient(store_at)
    stored = {item.path.rpartition(".")[2]: item.path for item in client.list_artifacts(run_id, "images")}
    assert (tmp_path / client.download_artifacts(run_id, stored["png"], tmp_path)).read_bytes() == path.read_bytes()
    thumbnail = cv2.imread(client.download_artifacts(run_id, stored["webp"], tmp_path))
    assert thumbnail.shape == (128, 256, 3)


@pytest.fixture
def store_at(tmp_path, monkeypatch, empty_store):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("store.db", "other.db"):
        shutil.copy(empty_store, tmp_path / name)
    return f"sqlite:///{tmp_path / 'store.db'}"


class FlakyStore(Store):
    """Fails every second request: in turn before it is made and after, when its answer is lost."""

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
def test_an_unreliable_store_ends_with_everything_once(tmp_path, store_at, kind, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(upload, "_BATCH", 7)
    uri = store_at if kind == "database" else (tmp_path / "files").as_uri()
    folder = write_run(tmp_path / "run")
    store, failures = FlakyStore(uri), 0
    uploader = Uploader(folder, store)
    while uploader.unsent or not uploader.ended:
        try:
            run_id = uploader.open()
            uploader.advance()
        except TrackingError:
            failures += 1
    uploader.close()
    assert failures > 10
    client = MlflowClient(uri)
    check_whole(client, run_id)
    assert len(client.search_runs([client.get_experiment_by_name("study").experiment_id])) == 1


def test_an_evaluation_and_the_last_checkpoint_are_not_left_for_the_end(tiny, tmp_path, store_at):
    folder = write_run(tmp_path / "run", end=None)
    config = tiny(f"tracking.uri={store_at}", "tracking.experiment=study")
    uploading = upload.MLflowUpload(config, folder, interval=1000.0)
    uploading.on_start(None)
    written = Journal(folder, go_on=True)

    def wait_until_sent():
        deadline = time.monotonic() + 30
        while uploading._uploader.unsent and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not uploading._uploader.unsent

    wait_until_sent()
    written.append("tags", values={"evaluated": "yes"})
    uploading.on_evaluation(None)
    wait_until_sent()
    uploading.on_checkpoint("last", folder)
    for name in ("first", "second"):  # nobody says that they are there
        written.append("tags", values={name: "yes"})
        wait_until_sent()
    written.append("end", status="finished")
    uploading.on_end("finished")
    written.close()
    check_whole(MlflowClient(store_at), uploading.run_id)
    assert MlflowClient(store_at).get_run(uploading.run_id).data.tags["second"] == "yes"


def test_another_process_goes_on_where_one_was_killed(tmp_path, store_at, monkeypatch):
    monkeypatch.setattr(upload, "_BATCH", 7)
    folder = write_run(tmp_path / "run")
    for requests in range(0, 12, 3):

        class Dying(Store):
            def log_metrics(self, *arguments, left=[requests], **named):  # noqa: B006
                if not left[0]:
                    raise SystemExit
                left[0] -= 1
                super().log_metrics(*arguments, **named)

        uploader = Uploader(folder, Dying(store_at))
        uploader.open()
        with suppress(SystemExit):
            uploader.advance()
        uploader._lock.release()  # as the operating system does
    check_whole(MlflowClient(store_at), sync(folder, store_at))


def test_sync_again_changes_nothing_and_another_store_gets_its_own(tmp_path, store_at):
    folder = write_run(tmp_path / "run")
    first = sync(folder, store_at)
    assert sync(folder) == first  # without a URI: where it was begun
    other = f"sqlite:///{tmp_path / 'other.db'}"
    check_whole(MlflowClient(other), sync(folder, other))
    check_whole(MlflowClient(store_at), first)


def test_a_training_that_was_killed_is_recorded_as_killed(tmp_path, store_at):
    check_whole(MlflowClient(store_at), sync(write_run(tmp_path / "run", end=None), store_at), "KILLED")


def test_what_cannot_be_sent_costs_nothing_else(tmp_path, store_at, caplog):
    folder = write_run(tmp_path / "run", end=None)
    with (folder / journal.FILE).open("a") as file:
        for kind, fields in (
            ("metrics", {"step": 99, "values": {"../refused": 1.0, "fine": 2.0}}),
            ("artifact", {"path": "gone.txt", "to": None}),
            ("unknown", {}),
            ("end", {"status": "failed"}),
        ):
            file.write(json.dumps({"kind": kind, "time": 1, **fields}) + "\n")
    client = MlflowClient(store_at)
    run_id = sync(folder, store_at)
    check_whole(client, run_id, "FAILED")
    assert client.get_run(run_id).data.metrics["fine"] == 2.0
    assert "gone.txt is gone" in caplog.text
    assert "../refused" in caplog.text


def test_a_deleted_run_is_said_to_be_deleted(tmp_path, store_at):
    folder = write_run(tmp_path / "run")
    uploader = Uploader(folder, Store(store_at))
    MlflowClient(store_at).delete_run(uploader.open())
    with pytest.raises(RunDeletedError, match="was deleted"):
        uploader.advance()


def test_a_journal_is_sent_by_one_process_at_a_time(tmp_path, store_at):
    folder = write_run(tmp_path / "run")
    uploader = Uploader(folder, Store(store_at))
    with pytest.raises(TrackingError, match="another process"):
        sync(folder, store_at)
    uploader.close()
    sync(folder, store_at)


def test_a_running_training_is_left_alone(tmp_path, store_at):
    written = Journal(tmp_path / "run")
    with pytest.raises(TrackingError, match="still running"):
        sync(tmp_path / "run", store_at)
    written.close()


def test_a_folder_without_a_journal_is_one_line(tmp_path):
    with pytest.raises(TrackingError, match=r"holds no journal\.jsonl"):
        sync(tmp_path)


def test_a_store_with_a_password_is_not_written_down(tmp_path, store_at, monkeypatch):
    folder = write_run(tmp_path / "run")

    class Protected(Store):
        def __init__(self, uri):
            super().__init__(store_at)
            self.uri = uri

    monkeypatch.setattr(upload, "Store", Protected)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:secret@host/db")
    first = sync(folder)
    assert not [path for path in folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert sync(folder) == first
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    with pytest.raises(TrackingError, match=r"postgresql://user:\*\*\*@host/db; set MLFLOW_TRACKING_URI"):
        sync(folder)


@pytest.fixture
def server(tmp_path, empty_store):
    (tmp_path / "server").mkdir()
    shutil.copy(empty_store, tmp_path / "server" / "server.db")
    with tracking_server(tmp_path / "server") as server:
        yield server


@pytest.mark.slow
def test_a_server_killed_and_restarted_in_the_middle_misses_nothing(tiny, tmp_path, server, monkeypatch):
    """Training goes on while the server is away; a second one, for which it never comes back, is sent later."""
    seconds_away = []

    class Outage(Callback):
        def on_step(self, record):
            if record.step == 3:
                server.kill()
                self.began = time.monotonic()
            if record.step == 10:
                seconds_away.append(time.monotonic() - self.began)
                if self.returns:
                    server.start()

    outage = Outage()
    monkeypatch.setattr("fcnlab.assembly.build_trainer", _with_callback(outage))
    words = [f"tracking.uri={server.uri}", "trainer.epochs=6", "trainer.eval_every=3", "tracking.wait=30"]
    config = tiny(*words)
    client = MlflowClient(server.uri)

    outage.returns = True
    result = fcnlab.train(config, tmp_path / "back")
    check_training(client, result.run_id, result)
    assert client.list_artifacts(result.run_id, "checkpoints")

    outage.returns = False
    config.tracking.wait = 1.0
    result = fcnlab.train(config, tmp_path / "gone")
    server.start()
    assert client.get_run(result.run_id).info.status == "RUNNING"
    command = [sys.executable, "-m", "fcnlab.track", "sync", str(tmp_path / "gone")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert result.run_id in done.stdout
    check_training(client, result.run_id, result)
    assert max(seconds_away) < 20  # seven tiny steps: waiting for MLflow's own retries would take minutes


def check_training(client, run_id, result):
    assert client.get_run(run_id).info.status == "FINISHED"
    assert losses(client, run_id) == list(enumerate(result.losses, start=1))
    assert [point.step for point in client.get_metric_history(run_id, "val/mean_iou")] == [6, 12]


def _with_callback(callback):
    from fcnlab.assembly import build_trainer

    def build(config, network, data, folder, callbacks):
        return build_trainer(config, network, data, folder, [*callbacks, callback])

    return build


def test_several_processes_may_meet_at_a_new_database(tmp_path):
    """MLflow alone fails then: each makes the same tables."""
    code = "import sys; from fcnlab.tracking.store import Store; print(Store(sys.argv[1]).open_experiment('study'))"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'new.db'}"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120) for process in processes]
    assert [out.strip() for out, _ in printed] == ["1"] * 2, printed
