"""The address of a tracking store means the place that it spells out, or is refused in one line."""

import os
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from fcnlab.core.errors import FcnlabError, RefusedError
from fcnlab.tracking.address import (
    artifact_location,
    database_file,
    default_store,
    run_page,
    settled,
    store_uri,
    ui_command,
)
from fcnlab.tracking.store import Store

NAMES = [
    "plain",
    "a b",
    "a+b&c",
    "a#b",
    "a%20b",
    "a%3Fb",
    "a%b",
    "a%2520b",
    "a;b=c",
    "a:b@c",
    "Hülle 背景",
    "a?b",
    "a?x=..",
]
DECODES = make_url("sqlite:///%3F").database == "?"  # SQLAlchemy 2.1 and later; before, no escape stands for a ?


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A function that makes a working directory of some name, with nothing beside it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(name):
        place = tmp_path / "around" / name
        place.mkdir(parents=True)
        monkeypatch.chdir(place)
        return place

    return make


def beside(place):
    return [path for path in place.parent.iterdir() if path != place]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_store_is_the_file_in_the_working_directory(folder, name):
    """SQLAlchemy, which MLflow uses, opens that file from another directory as well."""
    place = folder(name)
    if "?" in name and not DECODES:
        with pytest.raises(RefusedError, match=r"takes no database whose path holds a \?; .*tracking\.uri="):
            default_store()
        return
    uri = settled(store_uri(None))
    assert settled(uri) == uri
    assert ui_command(uri) == "mlflow ui"
    os.chdir("/")
    assert database_file(uri) == place / "mlflow.db"
    with sqlalchemy.create_engine(uri).connect() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE a (b INTEGER)"))
    assert (place / "mlflow.db").is_file()
    assert not beside(place)


@pytest.mark.skipif(not DECODES, reason="this SQLAlchemy has no address for a ?")
def test_nothing_lands_elsewhere_and_everything_is_found(folder, empty_store):
    place = folder("a?b%20c#d;e")
    (place / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = Store(store_uri(None))
    run_id = store.open_run("a journal", "study", "a run", {}, 0)
    (place / "note.txt").write_text("found")
    store.log_artifact(run_id, place / "note.txt", "notes")
    assert store.read_text(run_id, "notes/note.txt") == "found"
    assert len(list((place / "mlruns").rglob("note.txt"))) == 1
    assert not beside(place)
    os.chdir(place.parent)  # somebody reads the store from elsewhere
    client = MlflowClient(store.uri)
    assert [item.path for item in client.list_artifacts(run_id, "notes")] == ["notes/note.txt"]
    copy = str(place / "copy")
    found = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/notes/note.txt", None, None, copy, store.uri)
    assert Path(found).read_text() == "found"


def test_an_experiment_whose_artifacts_would_land_elsewhere_is_refused(folder, empty_store):
    place = folder("a%20b")
    (place / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = Store(store_uri(None))
    MlflowClient(store.uri).create_experiment("study", str(place / "mlruns/7"))
    with pytest.raises(
        RefusedError, match=r"tracking\.experiment=study: .* which MLflow reads as .*/a b/mlruns/7; choose"
    ):
        store.open_experiment("study")
    assert not (place.parent / "a b").exists()


def test_an_ordinary_folder_keeps_mlflows_own_place_for_artifacts(folder):
    folder("a b+c&d#e;f Hülle")
    assert artifact_location() is None


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("sqlite:///other.db", "other.db"),
        ("sqlite:///below/other.db?timeout=5", "below/other.db"),
        ("sqlite+pysqlite:///other.db", "other.db"),
        ("sqlite:///a@b:c/other.db", "a@b:c/other.db"),
    ],
)
def test_a_relative_address_is_of_the_working_directory_that_it_was_given_in(folder, given, path):
    place = folder("a#b")
    uri = settled(given)
    os.chdir("/")
    assert settled(uri) == uri
    assert database_file(uri) == place / path
    assert Path(make_url(uri).database) == place / path
    assert uri.partition("?")[2] == given.partition("?")[2]


def test_a_home_folder_in_an_address(folder, monkeypatch, tmp_path):
    folder("a")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database_file(settled("sqlite:///~/runs.db")) == tmp_path / "runs.db"
    assert settled("~/runs") == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("./mlruns", "{here}/mlruns"),
        ("file:mlruns", "file://{here}/mlruns"),
        ("file:///data/a%20b", "file:///data/a%20b"),
        ("/data/a%20b", "file:///data/a%2520b"),  # without a scheme it is a path, which MLflow decodes
        ("/data/a?b#c", "/data/a?b#c"),
        *[
            (uri, uri)
            for uri in ("http://host:5/?a", "postgresql://user:word@host/runs", "databricks", "databricks://a")
        ],
    ],
)
def test_other_stores(folder, given, expected):
    place = folder("a")
    assert settled(given) == expected.format(here=place)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:/data/a.db?uri=true", "give the plain path"),
        ("sqlite:////data/a?b/c.db", "'b/c.db' is none"),
        ("sqlite:///a.db?timeout", "'timeout' is none"),
        ("sqlite:///a.db?", "settings of the connection"),
        ("sqlite://a.db", "no third /"),
        ("sqlite:a.db", "is no address of a database"),
        ("file:///data/a?b", r"cuts it at the \?; write a \? in a path as %3F"),
        ("file:///data/a#b", "write a # in a path as %23"),
        ("file://mlruns", "no third /"),
        ("file:", "names no folder"),
        ("/data/\udcff", "no UTF-8"),
    ],
)
def test_what_means_no_place_or_another_is_refused(folder, given, said):
    folder("a")
    with pytest.raises(FcnlabError, match=said) as caught:
        settled(given)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.skipif(not DECODES, reason="this SQLAlchemy reads an address as it is spelt")
def test_an_address_that_is_read_as_another_place_than_the_one_that_is_there(folder):
    place = folder("a%20b")
    with pytest.raises(
        RefusedError, match=r"is read as .*/a b/c\.db, which is not there, while .*a%2520b/c\.db in place"
    ):
        settled(f"sqlite:///{place}/c.db")
    with pytest.raises(RefusedError, match="is read as"):
        settled(f"file://{place}")
    assert database_file(settled(f"sqlite:///{str(place).replace('%', '%25')}/c.db")) == place / "c.db"
    (place.parent / "a b").mkdir()
    assert database_file(settled(f"sqlite:///{place}/c.db")) == place.parent / "a b/c.db"


def test_what_to_type_is_quoted_and_knows_of_a_store_of_files(folder):
    place = folder("a b")
    other = settled("sqlite:///other.db")
    assert ui_command(other) == f"mlflow ui --backend-store-uri '{other}'"
    (place / "mlruns/0").mkdir(parents=True)
    assert ui_command(default_store()) == "mlflow ui"  # artifacts alone
    (place / "mlruns/0/meta.yaml").touch()  # a store of files, which MLflow prefers
    assert "--backend-store-uri" in ui_command(default_store())
    assert ui_command("http://user:word@host/") == "http://user:***@host/"


def test_the_store_is_the_key_then_the_environment_then_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri(None) == "http://127.0.0.1:5000"
    assert store_uri("sqlite:///other.db") == "sqlite:///other.db"


def test_what_to_type_to_look_at_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ui_command(store_uri(None)) == "mlflow ui"
    assert ui_command("sqlite:///other.db") == "mlflow ui --backend-store-uri sqlite:///other.db"
    assert ui_command("http://127.0.0.1:5000") == "http://127.0.0.1:5000"


def test_the_page_of_a_run_is_that_of_a_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = "/#/experiments/3/runs/abc?workflowType=machine_learning"
    assert run_page("https://user:word@host/mlflow/", "3", "abc") == f"https://user:***@host/mlflow{page}"
    assert run_page(default_store(), "3", "abc") == f"mlflow ui, then http://127.0.0.1:5000{page}"
    assert run_page("https://host", None, "abc") == "https://host"  # the store has not answered yet
    assert run_page(default_store(), "3", None) == "mlflow ui"
