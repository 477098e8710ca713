"""The one place that talks to MLflow: one training, one run."""

from __future__ import annotations

import logging
import os
import platform
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.environment import describe_cpu
from fcnlab.errors import FcnlabError
from fcnlab.tracking.images import comparison
from fcnlab.training.callbacks import Callback, CheckpointKind, EvaluationRecord, Plan, Status, StepRecord

log = logging.getLogger(__name__)

_MLFLOW_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
_BATCH = 900  # metrics a request: MLflow takes 1000


class TrackingError(FcnlabError):
    """The tracking store cannot be reached or refuses."""


class MLflowRun(Callback):
    """Records a training: parameters, metrics, prediction overlays and the best checkpoint.

    Args:
        config: The whole configuration; ``config.tracking`` says where to.
        seconds_between_writes: Metrics of single steps are written together, this often.
    """

    def __init__(self, config: Config, seconds_between_writes: float = 5.0) -> None:
        self.config = config
        self.uri = store_uri(config.tracking.uri)
        self.run_id: str | None = None
        self.seconds_between_writes = seconds_between_writes
        self._client: MlflowClient | None = None
        self._pending: list[Metric] = []
        self._wrote = 0.0
        self._best: Path | None = None

    def on_start(self, plan: Plan) -> None:
        quiet_store_setup()
        with _one_line_errors(self.uri):
            self._client = MlflowClient(tracking_uri=self.uri)
            experiment_id = _experiment(self._client, self.config.tracking.experiment)
            name = self.config.tracking.run_name or default_run_name(self.config)
            tags = {**resolve_tags(), **environment_tags(self.config), MLFLOW_RUN_NAME: name}
            self.run_id = self._client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
            parameters = [
                Param(key, str(value)[:MAX_PARAM_VAL_LENGTH])  # whole in config.yaml
                for key, value in configuration.flatten(self.config).items()
            ]
            for first in range(0, len(parameters), 100):
                self._client.log_batch(self.run_id, params=parameters[first : first + 100])
            self._client.log_text(self.run_id, configuration.to_yaml(self.config), "config.yaml")
        log.info("MLflow run %s (%s), to look at with: %s", name, self.run_id, ui_command(self.uri))

    def on_step(self, record: StepRecord) -> None:
        now = int(time.time() * 1000)
        for key in ("loss", "learning_rate", "images_per_second", "data_wait_fraction"):
            self._pending.append(Metric(f"train/{key}", getattr(record, key), now, record.step))
        if time.monotonic() - self._wrote >= self.seconds_between_writes:
            self._write()

    def on_evaluation(self, record: EvaluationRecord) -> None:
        now = int(time.time() * 1000)
        self._pending += [
            Metric(_allowed(key), value, now, record.step) for key, value in record.evaluation.metrics.items()
        ]
        self._write()
        dataset = self.config.dataset
        with _one_line_errors(self.uri):
            for sample, prediction in record.evaluation.samples:
                picture = comparison(
                    sample.image,
                    sample.label,
                    prediction,
                    num_classes=dataset.num_classes,
                    ignore_index=dataset.ignore_index,
                )
                self._client.log_image(self.run_id, picture, key=_allowed(f"overlay/{sample.name}"), step=record.step)

    def on_checkpoint(self, kind: CheckpointKind, path: Path) -> None:
        if kind == "best":
            self._best = path  # written over until the end, so it is uploaded once, then

    def on_end(self, status: Status) -> None:
        if self.run_id is None:
            return
        try:
            self._write()
            if self._best is not None:
                with _one_line_errors(self.uri):
                    self._client.log_artifact(self.run_id, str(self._best), "checkpoints")
        except TrackingError:
            status = "failed" if status == "finished" else status
            raise
        finally:
            with _one_line_errors(self.uri):
                self._client.set_terminated(self.run_id, _MLFLOW_STATUS[status])

    def _write(self) -> None:
        self._wrote = time.monotonic()
        with _one_line_errors(self.uri):
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[:_BATCH])
                del self._pending[:_BATCH]


def store_uri(configured: str | None) -> str:
    """Where runs go: the key, MLflow's own environment variable, or ``mlflow.db`` in the working directory."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or _default_store()


def _allowed(name: str) -> str:
    """A class's or file's name as MLflow takes it in the name of a metric or image."""
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name)


def default_run_name(config: Config) -> str:
    """Such as ``fcn8s-cells-seed0``."""
    return f"{config.arch.name}-{config.dataset.name}-seed{config.seed}"


def environment_tags(config: Config) -> Mapping[str, str]:
    """What a reader needs to know of the machine and the command, a year later."""
    return {
        "command": shlex.join(["python", "-m", "fcnlab.train", *sys.argv[1:]]) if _is_command() else "",
        "host": socket.gethostname(),
        "cpu": describe_cpu(),
        "seed": str(config.seed),
        "python": platform.python_version(),
        **{package: version(package) for package in ("fcnlab", "mindspore", "numpy", "mlflow")},
    }


def quiet_store_setup() -> None:
    """A new sqlite store logs every table it makes; nobody wants to read that."""
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_command() -> bool:
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return main is not None and main.name == "fcnlab.train"


def _experiment(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another process was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment={name}: was deleted; restore it with `mlflow experiments restore -x "
            f"{experiment.experiment_id}` or choose another name"
        )
    return experiment.experiment_id


@contextmanager
def _one_line_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except TrackingError:
        raise
    except (MlflowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise TrackingError(
            f"tracking store {uri}: {reason}; set tracking.uri=... or train without it: tracking=none"
        ) from error


def ui_command(uri: str) -> str:
    """What to type to look at a run, or where a server shows it."""
    if uri.startswith(("http://", "https://")):
        return uri
    return "mlflow ui" if uri == _default_store() else f"mlflow ui --backend-store-uri {uri}"


def _default_store() -> str:
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"
