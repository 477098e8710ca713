"""Makes the sqlite database of a new tracking store, which appears with all of MLflow's tables or not at all.

MLflow makes the tables in place and in many steps. If it is killed between two of them, or the disk is full, a database
is left that neither MLflow nor anybody else can use again. Therefore the tables are made in another file, which then
gets the name of the database, and a database that was left half made is replaced if it holds nothing.
"""

from __future__ import annotations

import glob
import logging
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy
from mlflow.store.db import utils as database_client
from mlflow.store.db.base_sql_model import Base

from fcnlab.core import files
from fcnlab.core.errors import TrackingError

log = logging.getLogger(__name__)

_SECONDS_QUIET = 3.0
"""How long a half made database must not have changed before it counts as left: `mlflow ui` may be making it."""
_SECONDS_TO_MAKE = 60.0
"""How long to wait for another program that makes the tables in place."""
_SECONDS_LEFT = 600.0
"""The age at which an unfinished database counts as one of a process that was killed."""
_FILLED_BY_MLFLOW = {"alembic_version", "workspaces"}
"""The tables into which MLflow itself writes rows while it makes the others."""


def make_if_missing(database: Path) -> None:
    """Make a database with all of MLflow's tables, unless there is one; replace one that was left half made.

    A database that holds a run or an experiment is never replaced, and neither is one that is not MLflow's.

    Args:
        database: The file of the database. The caller holds the lock that lets only one process make it.

    Raises:
        OSError: If the file cannot be made, as on a full disk. Nothing is left of it then.
        sqlite3.Error: If the file that is there is not a sqlite database.
        TrackingError: If another program is still making the tables after a minute.
    """
    _remove_left(database)
    if not database.exists():
        with files.creating(database) as temporary:
            _make(temporary)
    elif _is_left_half_made(database):
        log.warning("%s: was left half made and held no run, so it is made again", database)
        with files.replacing(database) as temporary:
            _make(temporary)


def is_half_made(database: Path) -> bool:
    """Return whether a database lacks tables or columns of MLflow's, and holds neither a run nor an experiment.

    Raises:
        sqlite3.Error: If the file is not a sqlite database.
    """
    # Opening the database for writing lets sqlite undo what a killed process was writing into it.
    with closing(sqlite3.connect(database, timeout=_SECONDS_TO_MAKE)) as connection:
        tables = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not name.startswith(("sqlite_", "_alembic_tmp_"))
        }
        known = {*Base.metadata.tables, "alembic_version"}
        if not tables <= known:
            return False
        if any(_has_rows(connection, table) for table in tables - _FILLED_BY_MLFLOW):
            return False
        if not set(Base.metadata.tables) <= tables:
            return True
        revisions = [revision for (revision,) in connection.execute("SELECT version_num FROM alembic_version")]
    return revisions != [database_client._get_latest_schema_revision()]


def _is_left_half_made(database: Path) -> bool:
    """Wait until a half made database is whole, or has not changed for a while."""
    deadline = time.monotonic() + _SECONDS_TO_MAKE
    seen, since = None, time.monotonic()
    while is_half_made(database):
        status = database.stat()
        now = time.monotonic()
        if seen != (status.st_ino, status.st_mtime_ns, status.st_size):
            seen, since = (status.st_ino, status.st_mtime_ns, status.st_size), now
        elif now - since >= _SECONDS_QUIET:
            return True
        if now > deadline:
            raise TrackingError(f"{database}: another program is still making its tables; try again when it is done")
        time.sleep(0.1)
    return False


def _has_rows(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None


def _remove_left(database: Path) -> None:
    """Remove the unfinished databases of processes that were killed while they made this one."""
    for path in database.parent.glob(f".{glob.escape(database.name)}.*.partial*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _SECONDS_LEFT:  # another process may be without the lock
                path.unlink()


def _make(path: Path) -> None:
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)), poolclass=sqlalchemy.NullPool
    )
    try:
        database_client._initialize_tables(engine)
    finally:
        engine.dispose()
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # sqlite leaves it on a full disk
