"""Reads runs from a tracking store."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlflow.entities import Dataset, Run
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from fcnlab.core.errors import MissingError, RefusedError
from fcnlab.core.identifiers import is_identifier
from fcnlab.recording.inputs import count_of
from fcnlab.recording.tags import JOURNAL_TAG, ROLE_TAG
from fcnlab.tracking.connection import Connection


class RunReader(Connection):
    """The requests that read runs. Each of them raises `TrackingError` if the store cannot be reached."""

    def has_run(self, run_id: str) -> bool:
        """Return whether a run exists, be it deleted or not."""
        if not is_identifier(run_id):
            return False
        try:
            with self._errors():
                self._client.get_run(run_id)
        except MissingError:
            return False
        return True

    def count_experiments(self) -> int:
        """Return how many experiments there are, without the deleted ones."""
        with self._errors():
            return len(self._client.search_experiments())

    def is_deleted(self, run_id: str) -> bool:
        """Return whether a run was deleted or does not exist."""
        if not is_identifier(run_id):
            return True
        try:
            with self._errors():
                return self._client.get_run(run_id).info.lifecycle_stage != "active"
        except MissingError:
            return True

    def tag(self, run_id: str, name: str) -> str | None:
        """Return the value of a run's tag; None if the run has no such tag.

        Raises:
            TrackingError: If there is no such run.
        """
        with self._errors():
            return self._client.get_run(run_id).data.tags.get(name)

    def tags(self, run_id: str) -> dict[str, str]:
        """Return all tags of a run.

        Raises:
            TrackingError: If there is no such run.
        """
        with self._errors():
            return dict(self._client.get_run(run_id).data.tags)

    def metric_names(self, run_id: str) -> list[str]:
        """Return the recorded names of a run's metrics.

        Raises:
            TrackingError: If there is no such run.
        """
        with self._errors():
            return sorted(self._client.get_run(run_id).data.metrics)

    def input_digests(self, run_id: str) -> dict[str, str]:
        """Return the digest of each data set of a run, by the context in which it was used."""
        with self._errors():
            return digests_of(self._client.get_run(run_id))

    def histories(self, run_id: str, keys: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
        """Return the history of some metrics of a run: (step, value) pairs in the order of steps, by metric."""
        with self._errors():
            return {
                key: [(point.step, _as_logged(point.value)) for point in self._client.get_metric_history(run_id, key)]
                for key in keys
            }

    def read_text(self, run_id: str, artifact: str) -> str:
        """Return a text artifact of a run.

        Raises:
            TrackingError: If there is no such artifact.
        """
        return self.read_bytes(run_id, artifact).decode("utf-8")

    def has_artifact(self, run_id: str, artifact: str) -> bool:
        """Return whether a run has an artifact, by its path of a folder and a file."""
        with self._errors():
            found = self._client.list_artifacts(run_id, artifact.rpartition("/")[0] or None)
            return any(item.path == artifact for item in found)

    def read_bytes(self, run_id: str, artifact: str) -> bytes:
        """Return an artifact of a run.

        Raises:
            TrackingError: If there is no such artifact.
        """
        with self._errors(), tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, artifact, folder)).read_bytes()

    def search_runs(self, experiment: str | None = None, filter: str = "") -> list[Run]:
        """Return every run that matches, in the order of their start times.

        Args:
            experiment: The name of an experiment; None for all experiments that are not deleted.
            filter: A filter of MLflow's search.

        Raises:
            TrackingError: If the experiment does not exist, or MLflow does not understand the filter.
        """
        with self._errors():
            if experiment is None:
                ids = [found.experiment_id for found in self._client.search_experiments()]
            else:
                found = self._client.get_experiment_by_name(experiment)
                if found is None:
                    known = ", ".join(sorted(item.name for item in self._client.search_experiments()))
                    raise RefusedError(f"there is no experiment '{experiment}' in {self.shown}; known are {known}")
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

    def find_run(self, journal: str, experiment: str) -> str | None:
        """Return the id of the run that a journal was sent to; None if this store has none.

        Args:
            journal: The id of the journal.
            experiment: The name of the experiment.
        """
        with self._errors():
            found = self._client.get_experiment_by_name(experiment)
            return self._run_of_journal(found.experiment_id, journal) if found is not None else None

    def run_of_model(self, uri: str) -> str | None:
        """Return the id of the run that made a registered model; None if the model does not say it.

        Args:
            uri: The model, ``models:/<name>@<alias>`` or ``models:/<name>/<version>``.

        Raises:
            TrackingError: If there is no such model.
        """
        name, _, alias = uri.removeprefix("models:/").partition("@")
        with self._errors():
            if alias:
                return self._client.get_model_version_by_alias(name, alias).run_id
            name, _, version = name.partition("/")
            return self._client.get_model_version(name, version).run_id if version.isdecimal() else None

    def parent_of_sweep(self, sweep: str) -> str | None:
        """Return the id of a sweep's parent run; None if there is none.

        Args:
            sweep: The id of the sweep, or of its parent run.
        """
        with self._errors():
            ids = [found.experiment_id for found in self._client.search_experiments()]
            parent = next(filter(None, (self._run_of_journal(experiment_id, sweep) for experiment_id in ids)), None)
        if parent is None and self.has_run(sweep) and self.tag(sweep, ROLE_TAG):
            return sweep
        return parent

    def _run_of_journal(self, experiment_id: str, journal: str) -> str | None:
        """Return the id of the run that was sent from a journal; the id of a sweep's journal is that of the sweep."""
        runs = self._runs_of_journal(experiment_id, journal)
        return min(runs, key=lambda run: (is_empty(run), run.info.run_id)).info.run_id if runs else None

    def _runs_of_journal(self, experiment_id: str, journal: str) -> list[Run]:
        """Return every run that was created for a journal: more than one after an answer was lost."""
        return list(self._client.search_runs([experiment_id], f"tags.`{JOURNAL_TAG}` = '{journal}'", max_results=100))


def is_empty(run: Run) -> bool:
    """Return whether nothing was logged to a run after it was created."""
    return not (run.data.metrics or run.data.params)


def digests_of(run: Run) -> dict[str, str]:
    """Return the digest of each data set of a run, by the context in which it was used."""
    return {context: dataset.digest for context, dataset in _datasets(run)}


def image_counts_of(run: Run) -> dict[str, int | None]:
    """Return the number of images of each data set of a run, by the context in which it was used."""
    return {context: count_of(dataset.profile or "") for context, dataset in _datasets(run)}


def _datasets(run: Run) -> Iterator[tuple[str, Dataset]]:
    for item in run.inputs.dataset_inputs:
        for tag in item.tags:
            if tag.key == MLFLOW_DATASET_CONTEXT:
                yield tag.value, item.dataset


def _as_logged(value: float) -> float:
    """Return infinity for the largest number, which MLflow's databases hold in its place."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value
