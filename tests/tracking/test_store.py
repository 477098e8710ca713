"""What is wrong with a store is said at once, in one line."""

import time

import pytest

from fcnlab.core.errors import TrackingError
from fcnlab.tracking.store import Store


def refused(uri):
    began = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        Store(uri).open_experiment("study")
    assert time.monotonic() - began < 15  # MLflow would try for 100 seconds
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
