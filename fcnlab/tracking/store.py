"""The one place that talks to a tracking store: each method is one request, or a few that may be repeated."""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as database_client
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from fcnlab.core.credentials import redact
from fcnlab.core.errors import RefusedError, TrackingError, first_line
from fcnlab.core.locks import waited_for
from fcnlab.recording.tags import JOURNAL_TAG, ROLE_TAG, SWEEP_TAG
from fcnlab.tracking.address import (
    artifact_location,
    database_file,
    misread_location,
    settled,
)

_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
_MODEL = "model"
_CHECKPOINT_TAG = "checkpoint"
_SECONDS_FOR_TABLES = 60.0
_ATTEMPTS = 3  # to open a database, in a second


class Store:
    """A tracking store, by MLflow's client.

    Every method may be called again with the same arguments when its outcome is unknown: the store then holds each
    thing once.

    Args:
        uri: As MLflow takes it; `store_uri` finds the default.

    Attributes:
        uri: The same place by an address that everybody reads alike, see `settled`.

    Raises:
        RefusedError: If the address means no place, or not the one that it seems to mean.
        TrackingError: If the store cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        # Whoever calls asks again anyway; MLflow's own seven attempts take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        # A new sqlite store logs every table it makes, and one that cannot be written its traceback, as a server that
        # does not answer every attempt: nobody wants to read the first, and the others come as exceptions, too.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        self.uri = settled(uri)
        with self._errors():
            _prepare_database(self.uri)
            with self._complete_database():
                self._client = MlflowClient(tracking_uri=self.uri)

    def open_experiment(self, name: str) -> str:
        """Make an experiment, or find it.

        Returns:
            Its id.

        Raises:
            TrackingError: If the store cannot be reached, or the experiment was deleted.
        """
        with self._errors():
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    return self._client.create_experiment(name, artifact_location() if self._is_local() else None)
                except MlflowException:  # another process was faster
                    experiment = self._client.get_experiment_by_name(name)
                    if experiment is None:
                        raise
            if experiment.lifecycle_stage != "active":
                raise RefusedError(
                    f"tracking.experiment={name}: was deleted; restore it with `mlflow experiments restore -x "
                    f"{experiment.experiment_id}` or choose another name"
                )
            misread = misread_location(experiment.artifact_location) if self._is_local() else None
            if misread is not None:
                raise RefusedError(
                    f"tracking.experiment={name}: its artifacts are to be in {experiment.artifact_location}, which "
                    f"MLflow reads as {misread}; choose another name for the experiment"
                )
            return experiment.experiment_id

    def open_run(self, journal: str, experiment: str, name: str, tags: Mapping[str, str], start_time: int) -> str:
        """Make the run of a journal, or find it.

        Args:
            journal: The journal's own identifier.
            experiment: Name of the experiment, made when missing.
            name: Of the run.
            tags: Of the run.
            start_time: Milliseconds since 1970.

        Returns:
            The run's id.

        Raises:
            TrackingError: If the store cannot be reached, or the experiment was deleted.
        """
        with self._errors():
            experiment_id = self.open_experiment(experiment)
            found = self._client.search_runs([experiment_id], f"tags.`{JOURNAL_TAG}` = '{journal}'", max_results=1)
            if found:
                return found[0].info.run_id
            tags = {**tags, JOURNAL_TAG: journal, MLFLOW_RUN_NAME: name}
            sweep, is_parent = tags.get(SWEEP_TAG), ROLE_TAG in tags
            if sweep and not is_parent and (parent := self._parent(experiment_id, sweep)):
                tags[MLFLOW_PARENT_RUN_ID] = parent
            run_id = self._client.create_run(experiment_id, start_time, tags, name).info.run_id
            if sweep and is_parent:
                self._adopt(experiment_id, sweep, run_id)
            return run_id

    @property
    def shown(self) -> str:
        """Where it is, without a password."""
        return redact(self.uri)

    def parent_of_sweep(self, sweep: str) -> str | None:
        """The parent run of a sweep, by the sweep's id or by its own; None if there is none."""
        with self._errors():
            ids = [found.experiment_id for found in self._client.search_experiments()]
            parent = next(filter(None, (self._parent(experiment_id, sweep) for experiment_id in ids)), None)
        if parent is None and self.has_run(sweep) and self.tag(sweep, ROLE_TAG):
            return sweep
        return parent

    def _parent(self, experiment_id: str, sweep: str) -> str | None:
        """The parent run of a sweep, whose journal has the sweep's id."""
        found = self._client.search_runs([experiment_id], f"tags.`{JOURNAL_TAG}` = '{sweep}'", max_results=1)
        return found[0].info.run_id if found else None

    def _adopt(self, experiment_id: str, sweep: str, parent: str) -> None:
        """Nest the trials that were sent before their sweep."""
        for run in self._client.search_runs([experiment_id], f"tags.`{SWEEP_TAG}` = '{sweep}'"):
            if run.info.run_id != parent:
                self._client.set_tag(run.info.run_id, MLFLOW_PARENT_RUN_ID, parent)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters; what is longer than MLflow takes is cut (``config.yaml`` has it whole)."""
        entities = [Param(key, str(value)[:MAX_PARAM_VAL_LENGTH]) for key, value in params.items()]
        with self._errors():
            for first in range(0, len(entities), MAX_PARAMS_TAGS_PER_BATCH):
                self._client.log_batch(run_id, params=entities[first : first + MAX_PARAMS_TAGS_PER_BATCH])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with self._errors():
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_metrics(self, run_id: str, points: Sequence[tuple[str, float, int, int]], unsure: bool = False) -> None:
        """Log points: name, value, milliseconds since 1970, step.

        Args:
            run_id: Of the run.
            points: Any number; a database takes a point that it has as no new one.
            unsure: Whether some may be in the store already; a store of files does not see that by itself.
        """
        metrics = [Metric(*point) for point in points]
        with self._errors():
            if unsure and self._keeps_files():
                metrics = self._missing(run_id, metrics)
            for first in range(0, len(metrics), MAX_METRICS_PER_BATCH):
                self._client.log_batch(run_id, metrics=metrics[first : first + MAX_METRICS_PER_BATCH])

    def log_inputs(self, run_id: str, datasets: Sequence[Mapping[str, str]]) -> None:
        """Log data sets: ``name``, ``digest``, ``source``, ``profile`` (JSON) and the ``context`` they were used in."""
        inputs = [
            DatasetInput(
                Dataset(item["name"], item["digest"], "fcnlab", item["source"], profile=item["profile"]),
                [InputTag(MLFLOW_DATASET_CONTEXT, item["context"])],
            )
            for item in datasets
        ]
        with self._errors():
            self._client.log_inputs(run_id, inputs)

    def log_artifact(self, run_id: str, path: Path, folder: str | None) -> None:
        """Copy a file or a whole folder to the run's artifacts."""
        with self._errors():
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), folder)
            else:
                self._client.log_artifact(run_id, str(path), folder)

    def log_image(self, run_id: str, path: Path, key: str, step: int, timestamp: int, unsure: bool = False) -> None:
        """Log a picture that the UI shows over time."""
        with self._errors():
            if unsure:
                name = f"images/{key.replace('/', '~')}+step+{step}+timestamp+{timestamp}+"
                paths = [item.path for item in self._client.list_artifacts(run_id, "images")]
                if sum(path.startswith(name) for path in paths) == 2:  # the picture and its thumbnail
                    return
            with Image.open(path) as image:
                image.load()
                image.save = partial(shutil.copyfile, path)  # a PNG already: encoding it again took a tenth of a second
                self._client.log_image(run_id, image, key=key, step=step, timestamp=timestamp)

    def log_model(self, run_id: str, folder: Path, digest: str) -> str:
        """Log an MLflow model folder as the run's ``model``.

        Args:
            run_id: Of the run.
            folder: The model.
            digest: Of its checkpoint, by which the store recognises what it has already.

        Returns:
            The model's id.
        """
        with self._errors():
            experiment_id = self._client.get_run(run_id).info.experiment_id
            mine = f"source_run_id = '{run_id}' AND name = '{_MODEL}'"
            found = [
                model
                for model in self._client.search_logged_models([experiment_id], mine)
                if model.tags.get(_CHECKPOINT_TAG) == digest
            ]
            model = (
                found[0]
                if found
                else self._client.create_logged_model(experiment_id, _MODEL, run_id, tags={_CHECKPOINT_TAG: digest})
            )
            if str(model.status) != "READY":
                self._client.log_model_artifacts(model.model_id, str(folder))
                self._client.finalize_logged_model(model.model_id, "READY")
            outputs = self._client.get_run(run_id).outputs
            if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
                self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            return model.model_id

    def register_model(self, run_id: str, model_id: str, **registration: Any) -> str:
        """Put a logged model into the registry, as `fcnlab.tracking.model_registry.register` says.

        Returns:
            What became of it, in words.
        """
        from fcnlab.tracking.model_registry import register

        with self._errors():
            return register(
                self._client, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, **registration
            ).reason

    def resume_run(self, run_id: str) -> None:
        """Set a run's status to RUNNING again."""
        with self._errors():
            self._client.update_run(run_id, "RUNNING")

    def tag(self, run_id: str, name: str) -> str | None:
        """A tag of a run; None if it has none of that name.

        Raises:
            TrackingError: If there is no such run, or the store cannot be reached.
        """
        with self._errors():
            return self._client.get_run(run_id).data.tags.get(name)

    def end_run(self, run_id: str, status: str, end_time: int) -> None:
        """Set the run's status: FINISHED, FAILED or KILLED."""
        with self._errors():
            self._client.set_terminated(run_id, status, end_time)

    def is_deleted(self, run_id: str) -> bool:
        """Whether somebody deleted the run."""
        try:
            with self._errors():
                return self._client.get_run(run_id).info.lifecycle_stage != "active"
        except RefusedError:
            return True

    def run_of_model(self, uri: str) -> str | None:
        """The run that a registered model came from, ``models:/<name>@<alias>`` or ``models:/<name>/<version>``.

        Returns:
            Its id; None if the model does not say it.

        Raises:
            TrackingError: If there is no such model.
        """
        name, _, alias = uri.removeprefix("models:/").partition("@")
        with self._errors():
            if alias:
                return self._client.get_model_version_by_alias(name, alias).run_id
            name, _, version = name.partition("/")
            return self._client.get_model_version(name, version).run_id if version.isdecimal() else None

    def find_run(self, journal: str, experiment: str) -> str | None:
        """The run that was made from a journal.

        Args:
            journal: The journal's own identifier.
            experiment: Name of the experiment.

        Returns:
            Its id; None if this store has none.

        Raises:
            TrackingError: If the store cannot be reached.
        """
        with self._errors():
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                return None
            tagged = f"tags.`{JOURNAL_TAG}` = '{journal}'"
            runs = self._client.search_runs([found.experiment_id], tagged, max_results=1)
            return runs[0].info.run_id if runs else None

    def read_text(self, run_id: str, artifact: str) -> str:
        """A text artifact of a run.

        Raises:
            TrackingError: If there is none.
        """
        with self._errors(), tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, artifact, folder)).read_text(encoding="utf-8")

    def input_digests(self, run_id: str) -> dict[str, str]:
        """The digest of each data set of a run, by the context that it was used in."""
        with self._errors():
            return digests_of(self._client.get_run(run_id))

    def search_runs(self, experiment: str | None = None, filter: str = "") -> list[Run]:
        """Every run that fits, in the order in which they were begun.

        Args:
            experiment: Name of the experiment; None: all that are not deleted.
            filter: As MLflow's search takes it.

        Raises:
            TrackingError: If the experiment does not exist, or the filter is not understood.
        """
        with self._errors():
            if experiment is None:
                ids = [found.experiment_id for found in self._client.search_experiments()]
            else:
                found = self._client.get_experiment_by_name(experiment)
                if found is None:
                    known = ", ".join(sorted(item.name for item in self._client.search_experiments()))
                    raise RefusedError(
                        f"there is no experiment '{experiment}' in {redact(self.uri)}; known are {known}"
                    )
                ids = [found.experiment_id]
            runs: list[Run] = []
            token = None
            while True:
                page = self._client.search_runs(
                    ids, filter, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
                )
                runs += page
                token = page.token
                if not token:
                    return runs

    def has_run(self, run_id: str) -> bool:
        """Whether there is such a run."""
        try:
            with self._errors():
                self._client.get_run(run_id)
        except RefusedError:
            return False
        return True

    def histories(self, run_id: str, keys: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
        """Metrics of a run by name: their steps and values, in the order of steps."""
        with self._errors():
            return {
                key: [(point.step, _as_logged(point.value)) for point in self._client.get_metric_history(run_id, key)]
                for key in keys
            }

    @contextmanager
    def _complete_database(self) -> Iterator[None]:
        """MLflow makes the tables of a new database step by step, and without a lock: one process must do it alone."""
        database = database_file(self.uri)
        lock = database.with_name(f".{database.name}.lock") if database is not None else None
        if lock is None or (database.exists() and not lock.exists()):
            yield
            return
        with waited_for(lock, _SECONDS_FOR_TABLES):
            yield

    def _is_local(self) -> bool:
        """Whether this process decides where artifacts are, and not a server."""
        return self._keeps_files() or urlsplit(self.uri).scheme.partition("+")[0] in DATABASE_ENGINES

    def _keeps_files(self) -> bool:
        return "://" not in self.uri or self.uri.startswith("file:")

    def _missing(self, run_id: str, metrics: list[Metric]) -> list[Metric]:
        held = {
            (metric.key, metric.step, metric.timestamp)
            for key in {metric.key for metric in metrics}
            for metric in self._client.get_metric_history(run_id, key)
        }
        return [metric for metric in metrics if (metric.key, metric.step, metric.timestamp) not in held]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say what went wrong in one line, without a password, and whether asking again may help."""
        try:
            yield
        except TrackingError:
            raise
        except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError, ModuleNotFoundError) as error:
            # The last is a database's driver.
            refused = isinstance(error, MlflowException) and error.error_code in _REFUSALS
            raise (RefusedError if refused else TrackingError)(
                f"tracking store {redact(self.uri)}: {redact(first_line(error))[:300]}"
            ) from error


def _as_logged(value: float) -> float:
    """A database of MLflow's holds the largest number in place of infinity."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def digests_of(run: Run) -> dict[str, str]:
    """The digest of each data set of a run, by the context that it was used in."""
    return {
        tag.value: item.dataset.digest
        for item in run.inputs.dataset_inputs
        for tag in item.tags
        if tag.key == MLFLOW_DATASET_CONTEXT
    }


def require_database(uri: str) -> None:
    """Refuse a database file that is not there, which MLflow would make.

    Raises:
        TrackingError: If so, or if the address is refused.
    """
    database = database_file(settled(uri))
    if database is not None and not database.exists():
        raise TrackingError(f"tracking store {redact(uri)}: no such file; tracking.uri=... names another one")


def _prepare_database(uri: str) -> None:
    """Let what cannot be opened fail at once: MLflow tries ten times in 100 seconds.

    Raises:
        OSError: If the folder of a sqlite file cannot be made or written.
        sqlite3.Error: If the file is not one of sqlite's.
    """
    if urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES:
        database_client.MAX_RETRY_COUNT = _ATTEMPTS
    database = database_file(uri)
    if database is None:
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    if not database.exists():
        if not os.access(database.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(database))
        return  # to be made by MLflow
    with closing(sqlite3.connect(database, timeout=_SECONDS_FOR_TABLES)) as connection:
        connection.execute("PRAGMA schema_version")
