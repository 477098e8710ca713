"""The database behind a tracking store: checks it before MLflow opens it, and lets one process make it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.store.db import utils as database_client
from mlflow.store.db.db_types import DATABASE_ENGINES

from fcnlab.core.credentials import redact
from fcnlab.core.errors import TrackingError
from fcnlab.core.locks import waited_for
from fcnlab.tracking.address import database_file, settled
from fcnlab.tracking.new_database import make_if_missing

_SECONDS_FOR_TABLES = 60.0
_ATTEMPTS = 3  # to open a database, within a second


def is_database(uri: str) -> bool:
    """Return whether a settled address is that of a database."""
    return urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES


def require_database(uri: str) -> None:
    """Refuse a database file that does not exist, which MLflow would create.

    Raises:
        TrackingError: If the file does not exist, or the address is refused.
    """
    database = database_file(settled(uri))
    if database is not None and not database.exists():
        raise TrackingError(f"tracking store {redact(uri)}: no such file; tracking.uri=... names another one")


def check_database(uri: str) -> None:
    """Fail at once for a database that cannot be opened, which MLflow would try ten times in 100 seconds.

    Raises:
        OSError: If the folder of a sqlite file cannot be created or written.
        sqlite3.Error: If the file is not a sqlite database.
    """
    if is_database(uri):
        database_client.MAX_RETRY_COUNT = _ATTEMPTS
    database = database_file(uri)
    if database is None:
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    if not database.exists():
        if not os.access(database.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(database))
        return  # `one_creator` makes the file
    with closing(sqlite3.connect(database, timeout=_SECONDS_FOR_TABLES)) as connection:
        connection.execute("PRAGMA schema_version")


@contextmanager
def one_creator(uri: str) -> Iterator[None]:
    """Make the tables of a new sqlite database, and let only one process do so and open it meanwhile.

    Raises:
        OSError: If the file cannot be made.
        TrackingError: If another program is still making the tables after a minute.
    """
    database = database_file(uri)
    if database is None or is_in_use(database):
        yield
        return
    with waited_for(database.with_name(f".{database.name}.lock"), _SECONDS_FOR_TABLES):
        make_if_missing(database)
        yield


def is_in_use(database: Path) -> bool:
    """Return whether a sqlite database is there and holds an experiment, as every one does that MLflow has opened.

    Raises:
        sqlite3.Error: If the file is not a sqlite database.
    """
    if not database.exists():
        return False
    with closing(sqlite3.connect(database, timeout=_SECONDS_FOR_TABLES)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return False
        return connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
