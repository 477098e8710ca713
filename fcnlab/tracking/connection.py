"""Opens a tracking store, and turns what goes wrong there into errors of one line."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from fcnlab.core.credentials import redact
from fcnlab.core.errors import MissingError, RefusedError, TrackingError, first_line
from fcnlab.tracking.address import settled
from fcnlab.tracking.database import check_database, one_creator

_MISSING = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
"""MLflow's codes for what is not in the store. A 404 without such a code comes from a proxy whose server is away."""
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", *_MISSING}
_NOT_SIGNED_IN, _TOO_LARGE = 401, 413
_REFUSED_STATUSES = {400, 405, 411, _TOO_LARGE, 414, 415, 422, 431, 501}
"""The HTTP statuses that the same request would get again. Others may change: 401 and 403 with new credentials, 404,
409, 429 and those from 500 with time."""
_STATUS = re.compile(r"failed with error code (\d{3}) != ")
"""How MLflow words an answer that is not its server's, but that of a proxy."""

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_ENVIRONMENT = threading.Lock()
"""Held while `_RETRIES` is changed, which MLflow reads at each request: several journals may be sent at once."""


class Connection:
    """A tracking store that was opened with MLflow's client.

    Args:
        uri: The address of the store, as MLflow takes it; `store_uri` finds the default.

    Attributes:
        uri: The settled address, which every library reads as the same place: see `settled`.

    Raises:
        RefusedError: If the address means no place, or not the one that it seems to mean.
        TrackingError: If the store cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        # The callers repeat their requests anyway, and MLflow's own seven attempts take minutes.
        os.environ.setdefault(_RETRIES, "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        # Nobody wants to read the log of every table that is created; errors come as exceptions as well.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        self.uri = settled(uri)
        with self._errors():
            check_database(self.uri)
            with one_creator(self.uri):
                self._client = MlflowClient(tracking_uri=self.uri)

    @property
    def shown(self) -> str:
        """The address without a password."""
        return redact(self.uri)

    @contextmanager
    def _not_repeated(self) -> Iterator[None]:
        """Keep MLflow from repeating a request that creates something, which would create it twice.

        The answer may be late or lost although the store did what it was asked. Who asks again has to look first.
        """
        with _ENVIRONMENT:
            before = os.environ.get(_RETRIES)
            os.environ[_RETRIES] = "0"
            try:
                yield
            finally:
                if before is None:
                    del os.environ[_RETRIES]
                else:
                    os.environ[_RETRIES] = before

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise what goes wrong as an error of one line, without a password.

        Raises:
            MissingError: If the store does not have what the request is about.
            RefusedError: If the store refuses the request, so that repeating it would not help.
            TrackingError: If repeating the request may help.
        """
        try:
            yield
        except TrackingError:
            raise
        # The driver of a database may be a module that is missing.
        except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError, ModuleNotFoundError) as error:
            raise _kind(error)(f"tracking store {self.shown}: {_reason(error)}") from error


def _kind(error: Exception) -> type[TrackingError]:
    """Return the class of our error for one of a library, which says whether to try again."""
    code = error.error_code if isinstance(error, MlflowException) else None
    status = _status(error)
    if code in _MISSING:
        return MissingError
    if status in _REFUSED_STATUSES or (status is None and code in _REFUSALS):
        return RefusedError
    return TrackingError


def _reason(error: Exception) -> str:
    if _status(error) == _TOO_LARGE:
        return (
            "413, this is more than the server takes at once, or a proxy before it; behind nginx, client_max_body_size "
            "sets the limit, which is 1 MiB without it"
        )
    if _status(error) == _NOT_SIGNED_IN:
        return (
            "401, the server knows no user of this name and password; set the environment variables "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    return redact(first_line(error))[:300]


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an answer that did not come from MLflow's own code; None if there is none."""
    response = getattr(error, "response", None)
    if isinstance(status := getattr(response, "status_code", None), int):
        return status
    found = _STATUS.search(str(error)) if isinstance(error, MlflowException) else None
    return int(found[1]) if found else None
