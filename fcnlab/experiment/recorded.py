"""Finds what an earlier training recorded, by its MLflow run or by its output folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fcnlab.config import RECORD_FILE, flatten
from fcnlab.core.errors import ConfigError, TrackingError
from fcnlab.core.foreign_files import LARGEST_YAML, read_text, require_small_yaml
from fcnlab.core.identifiers import is_identifier
from fcnlab.recording import journal, worker_history
from fcnlab.recording.tags import INITIALISED_TAG, WORKERS_TAG

if TYPE_CHECKING:
    from fcnlab.tracking.store import Store


def config_text(source: str, uri: str | None = None, key: str = "from_run") -> str:
    """Return the configuration that ``from_run=<run id or output folder>`` composes on, as YAML.

    Args:
        source: The run id or the output folder.
        uri: The tracking store of the run; by default the configured one.
        key: The key that names the run, for errors.

    Raises:
        ConfigError: If there is no such run or folder, or its configuration cannot be read.
    """
    if is_identifier(source):
        try:
            return _open_store(uri).read_text(source, RECORD_FILE)
        except TrackingError as error:
            raise _wrong_run(key, source, error) from error
    try:
        return read_text(Path(source).expanduser() / RECORD_FILE, LARGEST_YAML)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{key}={source}: is neither a run id (32 hexadecimal digits) nor an output folder with a {RECORD_FILE}"
        ) from error


def resumed_config_text(source: str, uri: str | None = None) -> str:
    """Return the configuration that ``resume=<run id or path>`` composes on, as YAML.

    Raises:
        ConfigError: If there is no such training, or its configuration cannot be read.
    """
    path = resumed_folder(source, uri) / RECORD_FILE
    try:
        return read_text(path, LARGEST_YAML)
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"resume={source}: {path} cannot be read, so nothing can be resumed") from None


def resumed_folder(source: str, uri: str | None = None) -> Path:
    """Return the output folder that ``resume=<run id or path>`` names.

    Args:
        source: A run id, an output folder, its folder of checkpoints, or a state in that.
        uri: The tracking store of the run; by default the configured one.

    Raises:
        ConfigError: If there is no such training.
    """
    if is_identifier(source):
        return _resumed_folder_of_run(source, uri)
    path = Path(source).expanduser()
    candidates = [path, path.parent] if path.name == journal.CHECKPOINTS else [path]
    if is_state(source):
        candidates = [path.parent.parent, path.parent]
    for folder in candidates:
        if (folder / journal.FILE).is_file():
            return folder
    raise ConfigError(
        f"resume={source}: is neither auto, nor a run id (32 hexadecimal digits), nor an output folder with a "
        f"{journal.FILE}, nor a state within one; init_from=... starts a new training from weights alone"
    )


def is_state(source: str) -> bool:
    """Whether ``resume=<source>`` names one saved state rather than a training."""
    return source.endswith(".safetensors")


def folder_of_run(run_id: str, uri: str | None = None) -> Path | None:
    """Return the output folder that a run records, which may be on another machine; None if it records none.

    Raises:
        TrackingError: If there is no such run, or the store cannot be reached.
    """
    from fcnlab.recording.tags import FOLDER_TAG

    tag = _open_store(uri).tag(run_id, FOLDER_TAG)
    return None if tag is None else Path(tag)


def config_values(folder: Path) -> dict[str, Any] | None:
    """Return the configuration that an output folder records, from dotted keys to values; None if it records none."""
    if not (folder / RECORD_FILE).is_file():  # a pipe would block
        return None
    try:
        return parse_values(read_text(folder / RECORD_FILE, LARGEST_YAML))
    except (OSError, UnicodeDecodeError):
        return None


def parse_values(text: str) -> dict[str, Any] | None:
    """Parse a configuration in YAML into dotted keys and values; return None if it is no configuration."""
    try:
        require_small_yaml(text)
        document = OmegaConf.to_container(OmegaConf.create(text))
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError):
        return None
    return flatten(document) if isinstance(document, dict) else None


def input_digests(source: str, uri: str | None = None) -> dict[str, str]:
    """Return the digest of the images of each context ("training", "validation") of a run id or an output folder.

    Raises:
        TrackingError: If they cannot be read.
    """
    if is_identifier(source):
        return _open_store(uri).input_digests(source)
    entries = journal.read(Path(source).expanduser() / journal.FILE)
    datasets = next((entry.fields["datasets"] for entry in entries if entry.kind == "inputs"), [])
    return {item["context"]: item["digest"] for item in datasets}


def initial_weights_digest(source: str, uri: str | None = None) -> str | None:
    """Return the SHA-256 of the file of weights that a run id or an output folder started from; None without one.

    Raises:
        TrackingError: If it cannot be read.
    """
    found = re.search(r"sha256:([0-9a-f]{64})$", str(_tag(source, uri, INITIALISED_TAG)))
    return found[1] if found else None


def workers(source: str, uri: str | None = None) -> list[int]:
    """Return how many workers trained a run id or an output folder together, 1 for one process.

    There is another number behind the first for each time that it was resumed by another number.

    Raises:
        TrackingError: If it cannot be read.
    """
    return worker_history.counts(_tag(source, uri, WORKERS_TAG))


def _tag(source: str, uri: str | None, name: str) -> str | None:
    if is_identifier(source):
        return _open_store(uri).tag(source, name)
    entries = journal.read(Path(source).expanduser() / journal.FILE)
    found = None
    for entry in entries:
        if entry.kind in ("run", "tags"):
            found = entry.fields.get("tags" if entry.kind == "run" else "values", {}).get(name, found)
    return found


def _resumed_folder_of_run(run_id: str, uri: str | None) -> Path:
    try:
        folder = folder_of_run(run_id, uri)
    except TrackingError as error:
        raise _wrong_run("resume", run_id, error) from error
    if folder is None:
        raise ConfigError(f"resume={run_id}: the run does not say where its output folder is; give the folder")
    if not (folder / journal.FILE).is_file():
        raise ConfigError(f"resume={run_id}: its output folder {folder} is not on this machine; give its place here")
    return folder


def _open_store(uri: str | None) -> Store:
    # Not at the top: a command that names no run should not wait for MLflow.
    from fcnlab.tracking.store import open_existing

    return open_existing(uri)


def _wrong_run(key: str, run_id: str, error: TrackingError) -> ConfigError:
    reason, _, _ = str(error).partition("; tracking.uri=")
    return ConfigError(f"{key}={run_id}: {reason}; tracking.uri=... names another store")
