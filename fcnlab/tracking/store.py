"""The requests to a tracking store: each method is one request, or a few that may be repeated."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH
from PIL import Image

from fcnlab.core.errors import RefusedError
from fcnlab.recording.tags import JOURNAL_TAG, ROLE_TAG, SWEEP_TAG
from fcnlab.tracking.address import artifact_location, misread_location, store_uri
from fcnlab.tracking.database import is_database, require_database
from fcnlab.tracking.experiment_page import experiment_tags
from fcnlab.tracking.model_registry import register
from fcnlab.tracking.run_reader import RunReader, is_empty

_MODEL = "model"
_CHECKPOINT_TAG = "checkpoint"


class Store(RunReader):
    """The requests that write runs, beside those that read them.

    If the outcome of a request is unknown, it may be repeated with the same arguments: the store holds each thing once.
    Each request raises `TrackingError` if the store cannot be reached, and `RefusedError` if the store refuses it.
    """

    def open_experiment(self, name: str) -> str:
        """Create an experiment, which says how to read it, or find it.

        Returns:
            The id of the experiment.

        Raises:
            RefusedError: If the experiment was deleted, or MLflow would put its artifacts elsewhere.
        """
        with self._errors():
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    place = artifact_location() if self._is_local() else None
                    return self._client.create_experiment(name, place, experiment_tags(name))
                except MlflowException:  # another process may have created it meanwhile
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
        """Create the run of a journal, or find it.

        Whoever repeats a call whose outcome is unknown calls `end_surplus` later: the store may still be creating the
        run of the first call when the second one looks for it.

        Args:
            journal: The id of the journal.
            experiment: The name of the experiment, which is created if it is missing.
            name: The name of the run.
            tags: The tags of the run.
            start_time: Milliseconds since 1970.

        Returns:
            The id of the run.

        Raises:
            RefusedError: As for `open_experiment`.
        """
        with self._errors():
            experiment_id = self.open_experiment(experiment)
            found = self._run_of_journal(experiment_id, journal)
            if found is not None:
                self.end_surplus(found)
                return found
            tags = {**tags, JOURNAL_TAG: journal, MLFLOW_RUN_NAME: name}
            sweep, is_parent = tags.get(SWEEP_TAG), ROLE_TAG in tags
            if sweep and not is_parent and (parent := self._run_of_journal(experiment_id, sweep)):
                tags[MLFLOW_PARENT_RUN_ID] = parent
            with self._not_repeated():
                run_id = self._client.create_run(experiment_id, start_time, tags, name).info.run_id
            if sweep and is_parent:
                self._adopt(experiment_id, sweep, run_id)
            return run_id

    def end_surplus(self, run_id: str) -> None:
        """Delete the empty runs that lost answers have left beside the run of a journal.

        Args:
            run_id: The id of the run that is kept.
        """
        with self._errors():
            run = self._client.get_run(run_id)
            if (journal := run.data.tags.get(JOURNAL_TAG)) is None:
                return
            for other in self._runs_of_journal(run.info.experiment_id, journal):
                if other.info.run_id != run_id and is_empty(other):
                    self._client.set_terminated(other.info.run_id, "KILLED")  # whoever restores it sees no running one
                    self._client.delete_run(other.info.run_id)

    def resume_run(self, run_id: str) -> None:
        """Set the status of a run to RUNNING again."""
        with self._errors():
            self._client.update_run(run_id, "RUNNING")

    def end_run(self, run_id: str, status: str, end_time: int) -> None:
        """Set the status of a run that ended.

        Args:
            run_id: The id of the run.
            status: FINISHED, FAILED or KILLED.
            end_time: Milliseconds since 1970.
        """
        with self._errors():
            self._client.set_terminated(run_id, status, end_time)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters. A value that is too long for MLflow is cut; ``config.yaml`` holds it whole."""
        entities = [Param(key, str(value)[:MAX_PARAM_VAL_LENGTH]) for key, value in params.items()]
        with self._errors():
            for first in range(0, len(entities), MAX_PARAMS_TAGS_PER_BATCH):
                self._client.log_batch(run_id, params=entities[first : first + MAX_PARAMS_TAGS_PER_BATCH])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        with self._errors():
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_metrics(self, run_id: str, points: Sequence[tuple[str, float, int, int]], unsure: bool = False) -> None:
        """Log values of metrics.

        Args:
            run_id: The id of the run.
            points: Name, value, milliseconds since 1970 and step of each value.
            unsure: Whether the store may hold some of the values already. A database recognises them; for a store of
                files, they have to be left out.
        """
        metrics = [Metric(*point) for point in points]
        with self._errors():
            if unsure and self._keeps_files():
                metrics = self._missing(run_id, metrics)
            for first in range(0, len(metrics), MAX_METRICS_PER_BATCH):
                self._client.log_batch(run_id, metrics=metrics[first : first + MAX_METRICS_PER_BATCH])

    def log_inputs(self, run_id: str, datasets: Sequence[Mapping[str, str]]) -> None:
        """Log the data sets of a run.

        Args:
            run_id: The id of the run.
            datasets: ``name``, ``digest``, ``source``, ``profile`` (JSON) and ``context`` of each data set.
        """
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
        """Copy a file or a whole folder to the artifacts of a run.

        Args:
            run_id: The id of the run.
            path: The file or folder.
            folder: The folder of the artifacts to copy to; None for their top.

        Raises:
            RefusedError: If the store refuses a file, which the text names; the others of a folder are copied.
        """
        refused = None
        for file in sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]:
            inside = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
            parts = [part for part in (folder, inside) if part not in (None, ".")]
            try:
                with self._errors():
                    self._client.log_artifact(run_id, str(file), "/".join(parts) or None)
            except RefusedError as error:
                refused = RefusedError(f"{file} ({file.stat().st_size / 2**20:.1f} MiB) is left out: {error}")
        if refused is not None:
            raise refused

    def log_image(self, run_id: str, path: Path, key: str, step: int, timestamp: int, unsure: bool = False) -> None:
        """Log a picture that MLflow's pages show over the steps.

        Args:
            run_id: The id of the run.
            path: A PNG.
            key: The key of the picture, the same at every step: see `image_key`.
            step: The step of the picture.
            timestamp: Milliseconds since 1970.
            unsure: Whether the store may hold the picture already.
        """
        with self._errors():
            if unsure:
                name = f"images/{key.replace('/', '~')}+step+{step}+timestamp+{timestamp}+"
                paths = [item.path for item in self._client.list_artifacts(run_id, "images")]
                if sum(path.startswith(name) for path in paths) == 2:  # the picture and its thumbnail
                    return
            with Image.open(path) as image:
                image.load()
                image.save = partial(shutil.copyfile, path)  # encoding the PNG again would take a tenth of a second
                self._client.log_image(run_id, image, key=key, step=step, timestamp=timestamp)

    def log_model(self, run_id: str, folder: Path, digest: str) -> str:
        """Log the folder of an MLflow model as the run's ``model``.

        Args:
            run_id: The id of the run.
            folder: The model.
            digest: The digest of the model's checkpoint, by which the store recognises what it has already.

        Returns:
            The id of the model.
        """
        with self._errors():
            experiment_id = self._client.get_run(run_id).info.experiment_id
            mine = f"source_run_id = '{run_id}' AND name = '{_MODEL}'"
            found = [
                model
                for model in self._client.search_logged_models([experiment_id], mine)
                if model.tags.get(_CHECKPOINT_TAG) == digest
            ]
            if found:
                model = found[0]
            else:
                with self._not_repeated():
                    tags = {_CHECKPOINT_TAG: digest}
                    model = self._client.create_logged_model(experiment_id, _MODEL, run_id, tags=tags)
            if str(model.status) != "READY":
                self._send_model_files(model.model_id, folder)
                self._client.finalize_logged_model(model.model_id, "READY")
            outputs = self._client.get_run(run_id).outputs
            if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
                self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            return model.model_id

    def register_model(self, run_id: str, model_id: str, **registration: Any) -> str:
        """Register a logged model, as `fcnlab.tracking.model_registry.register` does.

        Returns:
            The outcome, for a reader.
        """
        source = f"models:/{model_id}"
        with self._errors(), self._not_repeated():
            return register(self._client, source=source, run_id=run_id, model_id=model_id, **registration).reason

    def _send_model_files(self, model_id: str, folder: Path) -> None:
        """Send the files of a model; one that is refused makes it a failed model, which no page shows as usable."""
        try:
            with self._errors():
                self._client.log_model_artifacts(model_id, str(folder))
        except RefusedError as error:
            self._client.finalize_logged_model(model_id, "FAILED")
            raise RefusedError(f"the MLflow model in {folder} is left out: {error}") from error

    def _adopt(self, experiment_id: str, sweep: str, parent: str) -> None:
        """Nest the trials of a sweep that were sent before the sweep's own journal."""
        for run in self._client.search_runs([experiment_id], f"tags.`{SWEEP_TAG}` = '{sweep}'"):
            if run.info.run_id != parent:
                self._client.set_tag(run.info.run_id, MLFLOW_PARENT_RUN_ID, parent)

    def _missing(self, run_id: str, metrics: list[Metric]) -> list[Metric]:
        held = {
            (metric.key, metric.step, metric.timestamp)
            for key in {metric.key for metric in metrics}
            for metric in self._client.get_metric_history(run_id, key)
        }
        return [metric for metric in metrics if (metric.key, metric.step, metric.timestamp) not in held]

    def _is_local(self) -> bool:
        """Return whether this process, and not a server, decides where artifacts are."""
        return self._keeps_files() or is_database(self.uri)

    def _keeps_files(self) -> bool:
        return "://" not in self.uri or self.uri.startswith("file:")


def open_existing(uri: str | None) -> Store:
    """Open the store that an address means, as `store_uri` finds it; no database is made.

    Raises:
        TrackingError: If the database is not there, or the store cannot be reached.
    """
    uri = store_uri(uri)
    require_database(uri)
    return Store(uri)
