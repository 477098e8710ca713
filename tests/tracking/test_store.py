"""A store reports in one line, at once, that it cannot be opened; pictures are stored as they are."""

import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from mlflow import MlflowClient

from fcnlab.core.errors import TrackingError
from fcnlab.recording.tags import OVERRIDES_TAG
from fcnlab.tracking.store import Store


def refused(uri):
    began = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        Store(uri).open_experiment("study")
    assert time.monotonic() - began < 60  # MLflow would try for 100 seconds
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "notes.txt").write_text("no database " * 99)
    assert "file is not a database" in refused(f"sqlite:///{tmp_path / 'notes.txt'}")


@pytest.mark.parametrize("path", ["/proc/store.db", "/proc/none/store.db", "{tmp}/file/store.db", "{tmp}"])
def test_a_place_where_no_database_can_be(tmp_path, path):
    (tmp_path / "file").touch()
    uri = f"sqlite:///{path.format(tmp=tmp_path)}"
    assert refused(uri).startswith(f"tracking store {uri}: ")


def test_a_database_server_that_is_away():
    pytest.importorskip("psycopg")
    assert "tracking store postgresql+psycopg://" in refused("postgresql+psycopg://user@127.0.0.1:9/runs")


@pytest.mark.slow  # test_new_database.py has what a process does that comes too late
def test_several_processes_may_meet_at_a_new_database(tmp_path):
    """MLflow alone fails then: each makes the same tables."""
    uri = f"sqlite:///{tmp_path / 'new.db'}"
    code = (
        "import sys; from fcnlab.tracking.store import Store\n"
        "print('ready', flush=True); sys.stdin.readline(); print(Store(sys.argv[1]).open_experiment('study'))"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", code, uri], **pipes, text=True)
    assert other.stdout.readline() == "ready\n"
    other.stdin.write("\n")
    other.stdin.flush()
    here = Store(uri).open_experiment("study")
    out, err = other.communicate(timeout=1800)
    assert (here, out.strip()) == ("1", "1"), err


def test_a_picture_is_stored_as_it_was_written_with_a_thumbnail(tmp_path, uri):
    picture = np.random.default_rng(0).integers(0, 256, (300, 600, 3), np.uint8)
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), picture)
    store = Store(uri)
    run_id = store.open_run("journal", "study", "a run", {}, 1)
    store.log_image(run_id, path, "overlay/a", 7, 1000)
    client = MlflowClient(uri)
    stored = {item.path.rpartition(".")[2]: item.path for item in client.list_artifacts(run_id, "images")}
    assert (tmp_path / client.download_artifacts(run_id, stored["png"], tmp_path)).read_bytes() == path.read_bytes()
    thumbnail = cv2.imread(client.download_artifacts(run_id, stored["webp"], tmp_path))
    assert thumbnail.shape == (128, 256, 3)


def test_a_new_experiment_says_how_to_read_it_and_one_that_is_there_is_left_alone(tmp_path, empty_store):
    database = shutil.copy(empty_store, tmp_path / "store.db")
    store, client = Store(f"sqlite:///{database}"), MlflowClient(f"sqlite:///{database}")
    made = client.get_experiment(store.open_experiment("membranes"))
    text = made.tags["mlflow.note.content"]
    assert "python -m fcnlab.compare tracking.experiment=membranes" in text
    assert f"`{OVERRIDES_TAG}`" in text
    assert made.tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_experiment_tag(made.experiment_id, "mlflow.note.content", "mine")
    assert store.open_experiment("membranes") == made.experiment_id
    assert client.get_experiment(made.experiment_id).tags["mlflow.note.content"] == "mine"
    odd = client.get_experiment(store.open_experiment("two words"))
    assert "tracking.experiment=...`" in odd.tags["mlflow.note.content"]
