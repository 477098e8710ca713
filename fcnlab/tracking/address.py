"""The addresses of tracking stores, each of which means one place, whatever characters its path holds.

SQLAlchemy cuts a database's path at ``?`` and, since version 2.1, decodes ``%20`` in it. MLflow decodes the path of
every local folder. Therefore an address is settled before it is used: it is made absolute, as another process may open
the store from another working directory, and written so that every library reads it as the same path. An address for
which this is impossible is refused.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlparse
from urllib.request import url2pathname
from uuid import uuid4

import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from fcnlab.core.credentials import redact
from fcnlab.core.errors import RefusedError

_SQLITE = re.compile(r"sqlite(\+\w+)?:")
_SETTINGS = {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}
"""The settings after the ``?`` of a database's address that SQLAlchemy hands to Python's sqlite3."""
_ARTIFACTS = "mlruns"
"""The folder of the working directory in which MLflow keeps artifacts."""


def store_uri(configured: str | None) -> str:
    """Return the configured store, or the one of MLflow's environment variable, or `default_store`."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or default_store()


def default_store() -> str:
    """Return the address of the working directory's ``mlflow.db``, which ``mlflow ui`` opens there without a flag.

    Raises:
        RefusedError: If no address can name that file.
    """
    return _address_of_database(Path.cwd() / "mlflow.db", "sqlite", "")


def settled(uri: str) -> str:
    """Return an absolute address of a store that SQLAlchemy and MLflow read as the same place.

    Args:
        uri: An address as MLflow takes it. A path without a scheme is taken literally. In a path behind ``sqlite:`` or
            ``file:``, a ``%20`` means what the installed SQLAlchemy and MLflow read. A leading ``~`` is the home
            folder.

    Raises:
        RefusedError: If the address means no place that outlives the process, or not the one that it seems to mean.
    """
    if _SQLITE.match(uri):
        return _settled_database(uri)
    scheme = urlparse(uri).scheme
    if scheme == "file":
        return _settled_file(uri)
    if uri in ("databricks", "databricks-uc", "uc") or len(scheme) > 1:
        return uri
    return _address_of_folder(_absolute(uri, uri))


def database_file(uri: str) -> Path | None:
    """Return the file of a sqlite store with a settled address; None for any other store."""
    return Path(make_url(uri).database) if _SQLITE.match(uri) else None


def artifact_location() -> str | None:
    """Return where the artifacts of a new experiment belong; None for MLflow's own choice.

    MLflow's choice is a folder in the working directory, whose path it decodes: a ``%20`` in it would lead elsewhere.
    """
    folder = Path.cwd() / _ARTIFACTS
    if url2pathname(str(folder)) == str(folder) and "?" not in str(folder):
        return None
    return (folder / uuid4().hex).as_uri()


def misread_location(location: str) -> str | None:
    """Return the path as which MLflow reads an artifact location; None if that is the location itself."""
    if urlparse(location).scheme:
        return None
    read = url2pathname(location)
    return read if read != location else None


def run_page(uri: str, experiment_id: str | None, run_id: str | None) -> str:
    """Return the address of a run's page on a server, or the command that serves it and the address that it then has.

    The page is asked for as the one of a training: MLflow would show the view for language models otherwise.

    Args:
        uri: The settled address of the store.
        experiment_id: The id of the run's experiment; None if it is not known yet.
        run_id: The id of the run; None if there is none yet. The store itself is shown then.
    """
    page = f"/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
    known = experiment_id is not None and run_id is not None
    if uri.startswith(("http://", "https://")):
        return redact(uri).rstrip("/") + page if known else redact(uri)
    return f"{ui_command(uri)}, then http://127.0.0.1:5000{page}" if known else ui_command(uri)


def ui_command(uri: str) -> str:
    """Return the command that shows a run, or the address of the server that does."""
    if uri.startswith(("http://", "https://")):
        return redact(uri)
    if database_file(uri) == Path.cwd() / "mlflow.db" and not _has_file_store():
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {shlex.quote(redact(uri))}"


def _has_file_store() -> bool:
    """Return whether ``mlflow ui`` would open a store of files in the working directory instead of ``mlflow.db``."""
    return any(path.parent.name.isdigit() for path in Path(_ARTIFACTS).glob("*/meta.yaml"))


def _settled_database(uri: str) -> str:
    shown = f"tracking.uri={redact(uri)}"
    try:
        url = make_url(uri)
    except (SQLAlchemyError, ValueError) as error:
        raise RefusedError(f"{shown}: is no address of a database; write sqlite:///mlflow.db or the like") from error
    if url.host or url.username or url.password or url.port:
        raise RefusedError(f"{shown}: has no third /; write sqlite:///mlflow.db, or sqlite:////data/mlflow.db")
    if not url.database or url.database == ":memory:":
        raise RefusedError(
            f"{shown}: is a database in memory, which is lost with the process; name a file: sqlite:///mlflow.db"
        )
    path, mark, query = uri.partition("?")
    for part in query.split("&") if mark else []:
        name, _, value = part.partition("=")
        if name == "uri":
            raise RefusedError(f"{shown}: is sqlite's own kind of address, which MLflow misreads; give the plain path")
        if name not in _SETTINGS or not value:
            raise RefusedError(
                f"{shown}: what follows the ? is read as settings of the connection, and '{part}' is none; "
                f"{_escape('?') if make_url('sqlite:///%3F').database == '?' else 'no path may hold a ?'}"
            )
    read = _absolute(url.database, uri)
    literal = _absolute(path.partition(":///")[2], uri)
    _refuse_misreading(shown, literal, read)
    if literal == read and os.path.isabs(url.database):
        return uri
    return _address_of_database(read, url.drivername, mark + query)


def _settled_file(uri: str) -> str:
    shown = f"tracking.uri={redact(uri)}"
    parts = urlparse(uri)
    if parts.netloc not in ("", "localhost"):
        raise RefusedError(f"{shown}: has no third /; write file:///data/mlruns")
    for mark, rest in (("?", parts.query), ("#", parts.fragment), (";", parts.params)):
        if rest or uri.endswith(mark):
            raise RefusedError(f"{shown}: MLflow cuts it at the {mark}; {_escape(mark)}")
    if not parts.path:
        raise RefusedError(f"{shown}: names no folder; write file:///data/mlruns")
    read, literal = _absolute(url2pathname(parts.path), uri), _absolute(parts.path, uri)
    _refuse_misreading(shown, literal, read)
    return read.as_uri()


def _absolute(path: str, uri: str) -> Path:
    try:
        expanded = Path(path).expanduser() if path.startswith("~") else Path(path)
        path = os.path.abspath(expanded)
        path.encode()
    except RuntimeError as error:
        raise RefusedError(f"tracking.uri={redact(uri)}: there is no home folder; give the whole path") from error
    except UnicodeEncodeError as error:
        raise RefusedError(
            f"{path!a}: has a name that is no UTF-8, which no database's address can hold; give another place "
            "with tracking.uri=..., or train in another working directory"
        ) from error
    return Path(path)


def _refuse_misreading(shown: str, literal: Path, read: Path) -> None:
    """Refuse an address with ``%20`` if the path that it spells out exists, and the one that is read does not."""
    if literal == read:
        return
    exists: Callable[[Path], bool] = Path.exists if literal.exists() or read.exists() else lambda p: p.parent.exists()
    if exists(literal) and not exists(read):
        raise RefusedError(
            f"{shown}: is read as {read}, which is not there, while {literal} is; "
            f"write {quote(str(literal), safe='/')} in place of the path, or the address without a % in it"
        )


def _escape(mark: str) -> str:
    return f"write a {mark} in a path as {quote(mark)}"


def _address_of_database(path: Path, driver: str, query: str) -> str:
    path = _absolute(str(path), f"sqlite:///{path}")
    # The encoded form names the driver, as without it MLflow would create another folder, of the encoded name.
    encoded = f"{'sqlite+pysqlite' if driver == 'sqlite' else driver}:///{quote(str(path), safe='/')}"
    for address in (f"{driver}:///{path}", encoded):
        url = make_url(address)
        if url.database == str(path) and not url.query and "?" not in address:
            return address + query
    raise RefusedError(
        f"{path}: SQLAlchemy {sqlalchemy.__version__} takes no database whose path holds a ?; name another one with "
        "tracking.uri=..., or train in another working directory"
    )


def _address_of_folder(path: Path) -> str:
    return str(path) if url2pathname(str(path)) == str(path) else path.as_uri()
