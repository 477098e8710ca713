"""What a run recorded, as far as another training of the same can be compared with it, and the bundle that holds it."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab.config import RECORD_FILE
from fcnlab.core.errors import ConfigError, TrackingError
from fcnlab.core.files import replacing
from fcnlab.core.foreign_files import LARGEST_YAML
from fcnlab.core.identifiers import is_identifier
from fcnlab.experiment import recorded
from fcnlab.metrics.names import read_all
from fcnlab.recording import journal
from fcnlab.recording.provenance import DIFF_FILE
from fcnlab.recording.tags import WORKERS_TAG

if TYPE_CHECKING:
    from fcnlab.tracking.store import Store

EXPECTED = "expected.json"
LOCK = "versions.txt"
README = "README.txt"
"""The names of the files in a bundle, beside the configuration and the changes that were not committed."""

ENVIRONMENT = (
    *("fcnlab", "git.commit", "git.dirty", "mindspore", "numpy", "python", "cpu", "kernels", "platform"),
    WORKERS_TAG,
)
"""The tags of a run that say what it was made with."""

_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, OverflowError, RuntimeError),  # of deeply nested JSON, a password, or an unknown way to compress
)
_LARGEST = 2**28  # bytes of a file in a bundle
_DATASETS = ("training", "validation")


@dataclass(frozen=True)
class RunRecord:
    """What a run recorded of itself.

    Attributes:
        source: The run, for messages.
        config: Its configuration, as YAML.
        losses: The loss of each step.
        evaluations: The metrics of each evaluation, under their Python names, by step.
        digests: The digest of the training and of the validation images.
        initial_weights: The SHA-256 of the file of weights that it started from; None if it started from none.
        environment: What it was made with: see `ENVIRONMENT`.
        diff: What was not committed, for ``git apply``; empty if everything was.
        resumed_at: The steps from which it was resumed, as a text; empty if it never was.
    """

    source: str
    config: str
    losses: Mapping[int, float]
    evaluations: Mapping[int, Mapping[str, float]]
    digests: Mapping[str, str]
    initial_weights: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    diff: str = ""
    resumed_at: str = ""


def read(source: str, uri: str | None = None) -> RunRecord:
    """Read what a run recorded.

    Args:
        source: A run id, an output folder, or a bundle.
        uri: The tracking store of the run; by default the configured one.

    Raises:
        FcnlabError: If there is no such run, or it recorded too little.
    """
    path = Path(source).expanduser()
    if path.suffix == ".zip":
        return _read_bundle(path)
    config = recorded.config_text(source, uri, key="run")
    if is_identifier(source):
        from fcnlab.tracking.store import open_existing  # not at the top: it imports MLflow

        return _read_store(source, config, open_existing(uri))
    return _read_folder(path, source, config)


def write_bundle(record: RunRecord, path: Path, versions: str) -> None:
    """Write what a stranger needs to verify a run, in one file.

    Args:
        record: The run.
        path: The file, a ZIP archive.
        versions: The installed packages with their versions, a line each.

    Raises:
        ConfigError: If the disk does not take it.
    """
    values = asdict(record)
    texts = {
        RECORD_FILE: values.pop("config"),
        EXPECTED: json.dumps(_as_text(values), indent=1, ensure_ascii=False),
        LOCK: versions,
        README: _README.format(source=record.source, commit=record.environment.get("git.commit", "unknown")),
    }
    if record.diff:
        texts[DIFF_FILE] = record.diff
    try:
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(zipfile.ZipInfo(name), text.encode(), zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise ConfigError(f"output={path}: cannot be written ({error.strerror})") from error


_README = """This bundle holds what a run of fcnlab recorded of itself ({source}), so that anyone can compute it again.

    python -m fcnlab.verify <this file> dataset.root=<folder of the images>

trains its first steps anew and says whether images, losses and metrics agree. The code is commit {commit};
git.diff, if it is here, has what was not committed. config.yaml is the whole configuration, expected.json what was
recorded, and versions.txt the packages that were installed when the bundle was written.
"""


def _read_folder(folder: Path, source: str, config: str) -> RunRecord:
    entries = list(journal.read(folder / journal.FILE))
    run = next((entry.fields for entry in entries if entry.kind == "run"), None)
    if run is None:
        raise TrackingError(f"run={source}: its journal does not begin with a run")
    tags = dict(run.get("tags", {}))
    for entry in entries:
        if entry.kind == "tags":
            tags |= entry.fields["values"]
    diff = folder / DIFF_FILE
    return _record(
        source,
        config,
        journal.metrics(entries, _class_names(config)),
        tags,
        recorded.input_digests(source),
        recorded.initial_weights_digest(source),
        diff.read_text(encoding="utf-8") if diff.is_file() else "",
    )


def _read_store(run_id: str, config: str, store: Store) -> RunRecord:
    tags = store.tags(run_id)
    keys = [key for key in store.metric_names(run_id) if key == "train/loss" or key.startswith("val/")]
    diff = store.read_text(run_id, DIFF_FILE) if store.has_artifact(run_id, DIFF_FILE) else ""
    uri = store.uri
    digests, weights = recorded.input_digests(run_id, uri), recorded.initial_weights_digest(run_id, uri)
    series = read_all(store.histories(run_id, keys), _class_names(config))
    return _record(run_id, config, series, tags, digests, weights, diff)


def _class_names(config: str) -> list[str]:
    """Return the names of the classes that a configuration states, by which metrics of early versions are read."""
    names = (recorded.parse_values(config) or {}).get("dataset.class_names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _record(
    source: str,
    config: str,
    series: Mapping[str, Any],
    tags: Mapping[str, str],
    digests: Mapping[str, str],
    weights: str | None,
    diff: str,
) -> RunRecord:
    evaluations: dict[int, dict[str, float]] = {}
    for name, points in series.items():
        if name.startswith("val/"):
            for step, value in points:
                evaluations.setdefault(step, {})[name] = value
    return RunRecord(
        source,
        config,
        dict(series.get("train/loss", ())),  # a step that was repeated after an interruption counts once
        evaluations,
        {context: digest for context, digest in digests.items() if context in _DATASETS},
        weights,
        {name: tags[name] for name in ENVIRONMENT if name in tags},
        diff,
        tags.get("resumed_at_steps", ""),
    )


def _read_bundle(path: Path) -> RunRecord:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(RECORD_FILE).file_size > LARGEST_YAML or archive.getinfo(EXPECTED).file_size > _LARGEST:
                raise ValueError("a file in it is larger than any that is written")
            config = archive.read(RECORD_FILE).decode()
            values = json.loads(archive.read(EXPECTED))
        losses = {int(step): _number(value) for step, value in values["losses"].items()}
        evaluations = {
            int(step): {str(name): _number(value) for name, value in metrics.items()}
            for step, metrics in values["evaluations"].items()
        }
        texts = {key: _texts(values[key]) for key in ("digests", "environment")}
        weights = values["initial_weights"]
        return RunRecord(
            str(path),
            config,
            losses,
            evaluations,
            texts["digests"],
            None if weights is None else str(weights),
            texts["environment"],
            str(values["diff"]),
            str(values["resumed_at"]),
        )
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: is no bundle of a run ({reason}); make one with fcnlab.verify bundle") from error


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}


def _as_text(value: Any) -> Any:
    """Return a document in which a number that JSON has not is its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _as_text(item) for key, item in value.items()}
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is no number")
    return float(value)
