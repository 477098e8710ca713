"""A new database appears with all of its tables or not at all, and one that was left half made is made again."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from fcnlab.core.errors import TrackingError
from fcnlab.tracking import new_database
from fcnlab.tracking.database import is_in_use
from fcnlab.tracking.store import Store


@pytest.fixture
def copying(empty_store, monkeypatch):
    """Copy MLflow's tables instead of making them, which takes seconds; do not wait for other programs."""
    monkeypatch.setattr(new_database, "_make", lambda path: shutil.copy(empty_store, path))
    monkeypatch.setattr(new_database, "_SECONDS_QUIET", 0.2)


def run_sql(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def half_made(empty_store, path):
    """Leave a database as a killed process does: with tables that are missing, and no experiment yet."""
    shutil.copy(empty_store, path)
    run_sql(path, "DELETE FROM experiments", "DROP TABLE spans", "UPDATE alembic_version SET version_num = 'older'")
    return path


def test_while_the_tables_are_made_there_is_no_database(tmp_path, monkeypatch):
    database = tmp_path / "mlflow.db"

    def fail(path):
        path.write_bytes(b"half")
        assert not database.exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new_database, "_make", fail)
    with pytest.raises(OSError, match="No space"):
        new_database.make_if_missing(database)
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_it_without_a_lock_the_first_prevails(tmp_path, empty_store, monkeypatch):
    database = tmp_path / "mlflow.db"

    def overtaken(path):
        shutil.copy(empty_store, path)
        database.write_bytes(b"the other's")

    monkeypatch.setattr(new_database, "_make", overtaken)
    new_database.make_if_missing(database)
    assert database.read_bytes() == b"the other's"
    assert list(tmp_path.iterdir()) == [database]


@pytest.mark.parametrize("kind", ["empty file", "tables are missing", "columns are missing"])
def test_one_that_was_left_half_made_is_made_again(tmp_path, empty_store, copying, caplog, kind):
    database = tmp_path / "mlflow.db"
    if kind == "empty file":
        database.touch()
    elif kind == "tables are missing":
        half_made(empty_store, database)
    else:
        shutil.copy(empty_store, database)
        run_sql(database, "DELETE FROM experiments", "UPDATE alembic_version SET version_num = 'older'")
    Store(f"sqlite:///{database}").open_experiment("study")
    assert is_in_use(database)
    assert "was left half made and held no run" in caplog.text


def test_one_that_another_program_is_making_is_waited_for(tmp_path, empty_store, copying, monkeypatch):
    database = half_made(empty_store, tmp_path / "mlflow.db")
    changes = iter(range(10))

    def looked(path, half=new_database.is_half_made):
        if next(changes, None) is not None:
            os.utime(path)
            return half(path)
        shutil.copy(empty_store, path)
        return half(path)

    monkeypatch.setattr(new_database, "is_half_made", looked)
    inode = database.stat().st_ino
    new_database.make_if_missing(database)
    assert database.stat().st_ino == inode


def test_one_that_is_made_for_ever_is_one_line(tmp_path, empty_store, copying, monkeypatch):
    monkeypatch.setattr(new_database, "_SECONDS_QUIET", 9.0)
    monkeypatch.setattr(new_database, "_SECONDS_TO_MAKE", 0.3)
    with pytest.raises(TrackingError, match="still making its tables"):
        new_database.make_if_missing(half_made(empty_store, tmp_path / "mlflow.db"))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO runs (run_uuid) VALUES ('a')",
        "CREATE TABLE somebody (id)",
    ],
)
def test_one_that_holds_anything_is_left_alone(tmp_path, empty_store, statement):
    database = half_made(empty_store, tmp_path / "mlflow.db")
    run_sql(database, statement)
    before = database.read_bytes()
    new_database.make_if_missing(database)
    assert database.read_bytes() == before


def test_what_killed_processes_left_is_removed(tmp_path, copying):
    old, young = (tmp_path / f".mlflow.db.{name}.partial" for name in ("old", "young"))
    for path in (old, young):
        path.touch()
    os.utime(old, (1, 1))
    new_database.make_if_missing(tmp_path / "mlflow.db")
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", young.name}


@pytest.mark.slow
def test_one_that_mlflow_was_killed_over_is_made_again(tmp_path):
    database = tmp_path / "mlflow.db"
    code = "import fcnlab, sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    process = subprocess.Popen([sys.executable, "-c", code, f"sqlite:///{database}"], stderr=subprocess.DEVNULL)
    while not (database.exists() and database.stat().st_size > 150_000):
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert new_database.is_half_made(database)
    assert Store(f"sqlite:///{database}").open_experiment("study") == "1"
