"""``resume=auto|<run id>|<path>``: go on with a training that was interrupted, in its own folder and its own run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from yaml import YAMLError

from fcnlab import config as configuration
from fcnlab.config import RECORD_FILE, Config
from fcnlab.config.roles import Role
from fcnlab.config.schema import leaves, role_of
from fcnlab.core.errors import CheckpointError, ConfigError, DataError, TrackingError
from fcnlab.recording import journal

if TYPE_CHECKING:
    from fcnlab.recording.inputs import Input
    from fcnlab.training.state import TrainingState

log = logging.getLogger(__name__)

AUTO = "auto"
CHECKPOINTS = "checkpoints"
"""The folder of the checkpoints below an output folder."""


@dataclass(frozen=True)
class Interrupted:
    """A training that can go on.

    Attributes:
        folder: Its output folder.
        state: Where it goes on; None if it ended before it had saved any, so that it begins again.
    """

    folder: Path
    state: TrainingState | None

    def check(self, config: Config, inputs: Sequence[Input]) -> None:
        """Refuse to go on with something else.

        Args:
            config: Of the training that is to go on.
            inputs: Its images.

        Raises:
            ConfigError: If a key differs that cannot change in the middle.
            DataError: If the images are others.
            CheckpointError: If another version of MindSpore wrote the state.
        """
        if self.state is not None:
            _check_version(self.state)
        recorded = _recorded_config(self.folder, self.state)
        if recorded is not None:
            _check_config(self.folder, recorded, config)
        then = self.state.document.get("run", {}).get("inputs", {}) if self.state is not None else {}
        for item in inputs:
            if then.get(item.context, item.digest) != item.digest:
                raise DataError(
                    f"{self.folder}: the {item.context} images are not those that its training began with (digest "
                    f"{item.digest}, then {then[item.context]}): put them back, or start a new training with init_from"
                )


def output_words(words: Sequence[str], compose: Callable[[Sequence[str]], Config]) -> list[str]:
    """What to add to a command line so that Hydra's output folder is that of the training to go on with.

    Args:
        words: Of the command line.
        compose: Makes a configuration of them.

    Raises:
        FcnlabError: If ``resume`` names nothing that can go on.
    """
    source = configuration.value_of(words, "resume")
    if source is None:
        return []
    flags = [word for word in words if word.startswith("-")]
    chosen = configuration.value_of(words, "hydra.run.dir")
    if source == AUTO:
        if flags or chosen is not None:
            return []
        folder = search(compose(words))
    else:
        if {"-m", "--multirun"} & {*flags}:
            raise ConfigError(f"resume={source}: goes on with one training; leave -m out, or use resume={AUTO}")
        folder = folder_of(source, configuration.value_of(words, "tracking.uri"))
        if chosen is not None and Path(chosen).resolve() != folder.resolve():
            raise ConfigError(f"hydra.run.dir={chosen}: resume={source} goes on in {folder}; leave hydra.run.dir out")
    if folder is None:
        return []
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]  # what began it stays in .hydra


def refuse_occupied(words: Sequence[str]) -> None:
    """Refuse an output folder on a command line that holds a training already, if that one is not to go on.

    Raises:
        TrackingError: If so.
    """
    chosen = configuration.value_of(words, "hydra.run.dir")
    if chosen is None or any(word.startswith("-") for word in words):
        return
    if configuration.value_of(words, "resume") is None:
        journal.refuse_occupied(Path(chosen))


def find(config: Config, folder: Path | None) -> Interrupted | None:
    """The training that ``config.resume`` names.

    Args:
        config: With ``resume`` set.
        folder: The output folder, if it is settled.

    Returns:
        None if it is ``auto`` and there is nothing to go on with.

    Raises:
        FcnlabError: If it names nothing that can go on, or every state is damaged.
    """
    # Not at the top: this module is part of every command's start, and MindSpore takes seconds.
    from fcnlab.training.state import StateFolder, read_state

    state = None
    if config.resume == AUTO:
        folder = folder or search(config)
        if folder is None or not (folder / journal.FILE).is_file():
            log.info("resume=auto: there is nothing to go on with, so a new training begins")
            return None
    else:
        folder = folder_of(config.resume, config.tracking.uri)
        if _is_state(config.resume):
            state = read_state(Path(config.resume))
    if journal.is_being_written(folder):
        raise journal.being_written(folder)
    if state is None:
        state = StateFolder(folder / CHECKPOINTS).newest()
    if state is None:
        log.warning("%s: ended before its first state was saved, so it begins again", folder)
    else:
        log.info("%s: goes on from %s, after step %d", folder, state.path.name, state.progress.steps)
    return Interrupted(folder, state)


def search(config: Config, roots: Sequence[str] = ("outputs",), finished: bool = False) -> Path | None:
    """The newest training of a configuration that can go on; none that is alive.

    Args:
        config: What it must have been made with, apart from keys of the role MACHINE.
        roots: Below which to look.
        finished: Whether one that came to its end is good, too.
    """
    found = [path for root in roots for path in Path(root).rglob(journal.FILE)]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        folder = path.parent
        if not is_of(config, folder) or journal.is_being_written(folder):
            continue
        if finished or not journal.is_finished(folder):
            return folder
    return None


def is_of(config: Config, folder: Path) -> bool:
    """Whether a folder holds the training of a configuration, apart from keys of the role MACHINE."""
    recorded = _read_config(folder)
    return (
        recorded is not None
        and recorded.get("dataset.root") == config.dataset.root
        and not _differences(recorded, config)
    )


def folder_of(source: str, uri: str | None = None) -> Path:
    """The output folder that ``resume=<run id or path>`` means.

    Raises:
        ConfigError: If there is no training.
    """
    if re.fullmatch("[0-9a-f]{32}", source):
        return _folder_of_run(source, uri)
    path = Path(source)
    candidates = [path, path.parent] if path.name == CHECKPOINTS else [path]
    if _is_state(source):
        candidates = [path.parent.parent, path.parent]
    for folder in candidates:
        if (folder / journal.FILE).is_file():
            return folder
    raise ConfigError(
        f"resume={source}: is neither auto, nor a run id (32 hexadecimal digits), nor an output folder with a "
        f"{journal.FILE}, nor a state within one; init_from=... starts a new training from weights alone"
    )


def recorded_text(source: str, uri: str | None = None) -> str:
    """The configuration that ``resume=<run id or path>`` composes on.

    Raises:
        ConfigError: If there is no training, or its configuration cannot be read.
    """
    folder = folder_of(source, uri)
    try:
        return (folder / RECORD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"resume={source}: {folder / RECORD_FILE} cannot be read, so nothing can go on") from None


def _folder_of_run(run_id: str, uri: str | None) -> Path:
    from fcnlab.recording.tags import FOLDER_TAG
    from fcnlab.tracking.address import store_uri
    from fcnlab.tracking.store import Store

    try:
        tag = Store(store_uri(uri)).tag(run_id, FOLDER_TAG)
    except TrackingError as error:
        raise ConfigError(f"resume={run_id}: {error}; tracking.uri=... names another store") from error
    if tag is None:
        raise ConfigError(f"resume={run_id}: the run does not say where its output folder is; give the folder")
    if not (Path(tag) / journal.FILE).is_file():
        raise ConfigError(f"resume={run_id}: its output folder {tag} is not on this machine; give its place here")
    return Path(tag)


def _is_state(source: str) -> bool:
    return source.endswith(".safetensors")


def _check_version(state: TrainingState) -> None:
    import mindspore as ms

    from fcnlab import kernels
    from fcnlab.core.environment import describe_cpu

    then = state.document.get("versions", {}).get("mindspore")
    if then != ms.__version__:
        raise CheckpointError(
            f"{state.path}: was written with MindSpore {then}, and {ms.__version__} computes other numbers: use that "
            f"version, or start a new training from its weights with init_from={state.path}"
        )
    now = {"cpu": describe_cpu(), "kernels": kernels.describe()}
    for key, what in (("cpu", "on another processor"), ("kernels", "with other operators")):
        if state.document.get(key) != now[key]:
            log.warning(
                "the training began %s (%s): it goes on, but perhaps not bit for bit as there",
                what,
                state.document.get(key),
            )


def _check_config(folder: Path, recorded: Mapping[str, Any], config: Config) -> None:
    for key, (role, then, now) in _differences(recorded, config).items():
        if Role.FIXED in role:
            raise ConfigError(
                f"{key}={now}: the training in {folder} has {key}={then}, which cannot change in the middle; leave it "
                "as it was, or start a new training with init_from"
            )
        log.warning("%s=%s from here on; it was %s", key, now, then)


def _differences(recorded: Mapping[str, Any], config: Config) -> dict[str, tuple[Role, Any, Any]]:
    """The keys that differ, but for those of the role MACHINE, with their role and their values then and now.

    A key that one side does not have counts as the same.
    """
    return {
        key: (role_of(metadata), recorded[key], value)
        for key, value, metadata in leaves(config)
        if key in recorded
        and recorded[key] != value
        and value != configuration.MEDIAN_FREQUENCY  # the numbers that it stood for are recorded
        and Role.MACHINE not in role_of(metadata)
    }


def _recorded_config(folder: Path, state: TrainingState | None) -> dict[str, Any] | None:
    text = state.document.get("run", {}).get("config") if state is not None else None
    return _flat(text) if isinstance(text, str) else _read_config(folder)


def _read_config(folder: Path) -> dict[str, Any] | None:
    try:
        return _flat((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _flat(text: str) -> dict[str, Any] | None:
    """Dotted keys to values; None if it is no configuration."""
    try:
        node = OmegaConf.to_container(OmegaConf.create(text))
    except (YAMLError, ValueError):
        return None
    return dict(_leaves(node)) if isinstance(node, dict) else None


def _leaves(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
