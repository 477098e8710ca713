"""What identifies a sweep, in its folder: its id and the words that it was started with."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcnlab import config as configuration
from fcnlab.config.roles import Role
from fcnlab.config.schema import Config, keys_with
from fcnlab.core.errors import ConfigError, TrackingError
from fcnlab.core.files import replacing
from fcnlab.core.identifiers import is_identifier
from fcnlab.experiment import recorded

FILE = "sweep.json"
ROOT = "multirun"
"""Where sweeps are looked for, below the working directory."""

ID_VARIABLE = "FCNLAB_SWEEP"
"""The environment variable of a trial's job that holds the sweep's id."""

_FLAGS = ("-m", "--multirun")
_HOW_TO_GO_ON = ("sweep.resume=", "sweep.skip_finished=")
_MAY_CHANGE = (
    *(f"{key}=" for key in keys_with(Role.BESIDE_SWEEP, Config())),
    *("hydra/launcher=", "hydra.launcher."),
)


@dataclass(frozen=True)
class SweepRecord:
    """A sweep, as its folder says.

    Attributes:
        id: 32 hexadecimal digits; also the identifier of the parent run's journal.
        words: Of the command line, without flags and without what this package adds.
        folder: The sweep's output folder; None until Hydra has chosen it.
    """

    id: str
    words: tuple[str, ...]
    folder: Path | None = None

    def write(self, folder: Path) -> None:
        """Write it into the sweep's folder.

        Raises:
            OSError: If the disk does not take it.
        """
        with replacing(folder / FILE) as temporary:
            temporary.write_text(json.dumps({"id": self.id, "words": self.words}, indent=1), encoding="utf-8")


def read(folder: Path) -> SweepRecord | None:
    """The sweep of a folder; None if there is none, or its record is damaged."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        words = tuple(map(str, document["words"]))
        return SweepRecord(document["id"], words, folder) if is_identifier(document["id"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_multirun(words: Sequence[str]) -> bool:
    """Whether the words of a command line ask for several trainings."""
    return any(word in _FLAGS for word in words) or configuration.value_of(words, "sweep.resume") is not None


def begin(words: Sequence[str]) -> tuple[SweepRecord, list[str]]:
    """The sweep that a command line begins or goes on with.

    Args:
        words: Of a command line for which `is_multirun` is true.

    Returns:
        The sweep, and the words for Hydra, which name its id and, if it has one already, its folder.

    Raises:
        ConfigError: If ``sweep.resume`` names no sweep or stands beside other words, or if the folder that is asked for
            holds another sweep.
    """
    if configuration.value_of(words, "sweep.id") is not None:
        raise ConfigError("sweep.id: a sweep gets its id by itself; sweep.resume=<id> goes on with one")
    source = configuration.value_of(words, "sweep.resume")
    if source is not None:
        return _resumed(source, words)
    flags = [word for word in words if word.startswith("-")]
    own = tuple(word for word in words if word not in flags and not word.startswith("sweep.skip_finished="))
    chosen = configuration.value_of(words, "hydra.sweep.dir")
    if configuration.value_of(words, "sweep.skip_finished") in ("True", "true"):
        found = _newest(own, chosen)
        if found is not None:
            return found, [*words, *_words_of(found)]
    elif chosen is not None and (there := read(Path(chosen))) is not None:
        if configuration.value_of(words, "resume") is None:
            raise ConfigError(
                f"{chosen}: holds a sweep already; choose another hydra.sweep.dir, or go on with it: "
                f"sweep.resume={chosen}"
            )
        return there, [*words, *_words_of(there)]
    record = SweepRecord(uuid.uuid4().hex, own)
    return record, [*words, _word_of_id(record)]


def find(source: str, uri: str | None = None, key: str = "sweep.resume") -> SweepRecord:
    """The sweep that a user names by its folder, its id, or its parent run.

    Args:
        source: What the user wrote.
        uri: The tracking store to look for a run in.
        key: How an error calls it.

    Raises:
        ConfigError: If there is none.
    """
    if (found := read(Path(source))) is not None:
        return found
    if not is_identifier(source):
        raise ConfigError(f"{key}={source}: is neither the folder of a sweep, with a {FILE}, nor a sweep's or run's id")
    for path in Path(ROOT).rglob(FILE):
        if (found := read(path.parent)) is not None and found.id == source:
            return found
    folder = _folder_of_run(source, uri, key)
    if (found := read(folder)) is None:
        raise ConfigError(f"{key}={source}: the sweep's folder {folder} is not here; give its place on this machine")
    return found


def _resumed(source: str, words: Sequence[str]) -> tuple[SweepRecord, list[str]]:
    others = [
        word
        for word in words
        if word not in _FLAGS
        and not word.lstrip("+").startswith(("sweep.resume=", "sweep.skip_finished=", *_MAY_CHANGE))
    ]
    if others:
        raise ConfigError(
            f"sweep.resume={source}: goes on with the words that the sweep was begun with; leave out {others[0]}"
        )
    found = find(source, configuration.value_of(words, "tracking.uri"))
    added = [word for word in words if word.startswith(_MAY_CHANGE)]
    return found, ["-m", *found.words, *added, *_words_of(found), "sweep.skip_finished=true"]


def _words_of(record: SweepRecord) -> list[str]:
    return [_word_of_id(record), configuration.override("hydra.sweep.dir", record.folder)]


def _word_of_id(record: SweepRecord) -> str:
    """Hydra hands its own keys to every job, wherever that runs, and does not list them."""
    return f"+hydra.job.env_set.{ID_VARIABLE}={record.id}"


def _newest(words: tuple[str, ...], chosen: str | None) -> SweepRecord | None:
    """The newest sweep that was begun with the same words."""
    paths = [Path(chosen) / FILE] if chosen is not None else list(Path(ROOT).rglob(FILE))
    paths = sorted((path for path in paths if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((found for path in paths if (found := read(path.parent)) is not None and found.words == words), None)


def _folder_of_run(run_id: str, uri: str | None, key: str) -> Path:
    try:
        folder = recorded.folder_of_run(run_id, uri)
    except TrackingError as error:
        raise ConfigError(f"{key}={run_id}: no sweep below {ROOT}/ has this id, and {error}") from error
    if folder is None:
        raise ConfigError(f"{key}={run_id}: the run does not say where its folder is; give the sweep's folder")
    return folder
