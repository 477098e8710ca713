"""Which sweep a command line begins or resumes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from fcnlab import config as configuration
from fcnlab.config.roles import Role
from fcnlab.config.schema import Config, keys_with
from fcnlab.core.errors import ConfigError, TrackingError
from fcnlab.core.identifiers import is_identifier
from fcnlab.experiment import recorded
from fcnlab.sweeps.manifest import FILE, ROOT, SweepManifest, read

_FLAGS = ("-m", "--multirun")
_RESUMING = ("sweep.resume=", "sweep.skip_finished=")
_MAY_CHANGE = (
    *(f"{key}=" for key in keys_with(Role.BESIDE_SWEEP, Config())),
    *("hydra/launcher=", "hydra.launcher."),
)


def is_multirun(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of a command line ask for several trainings."""
    return any(word in _FLAGS for word in arguments) or configuration.value_of(arguments, "sweep.resume") is not None


def begin(arguments: Sequence[str]) -> tuple[SweepManifest, list[str]]:
    """Find the sweep that a command line resumes, or make up the one that it begins.

    Args:
        arguments: The arguments of a command line for which `is_multirun` is true.

    Returns:
        The sweep, and the command line for Hydra, which names the sweep's folder if it has one already.

    Raises:
        ConfigError: If ``sweep.resume`` names no sweep or stands beside other overrides, or if the folder that is asked
            for holds another sweep.
    """
    if configuration.value_of(arguments, "sweep.id") is not None:
        raise ConfigError("sweep.id: a sweep gets its id by itself; sweep.resume=<id> resumes one")
    source = configuration.value_of(arguments, "sweep.resume")
    if source is not None:
        return _resume(source, arguments)
    overrides = tuple(word for word in arguments if not word.startswith(("-", "sweep.skip_finished=")))
    chosen = configuration.value_of(arguments, "hydra.sweep.dir")
    if configuration.value_of(arguments, "sweep.skip_finished") in ("True", "true"):
        found = _newest(overrides, chosen)
        if found is not None:
            return found, [*arguments, _override_of_folder(found)]
    elif chosen is not None and (there := read(Path(chosen))) is not None:
        if configuration.value_of(arguments, "resume") is None:
            raise ConfigError(
                f"{chosen}: holds a sweep already; choose another hydra.sweep.dir, or resume it: sweep.resume={chosen}"
            )
        return there, [*arguments, _override_of_folder(there)]
    return SweepManifest(uuid.uuid4().hex, overrides), list(arguments)


def find(source: str, uri: str | None = None) -> SweepManifest:
    """Find the sweep that ``sweep.resume`` names by its folder, its id or its parent run.

    Args:
        source: The value of ``sweep.resume``.
        uri: The tracking store that holds the parent run.

    Raises:
        ConfigError: If there is no such sweep.
    """
    if (found := read(Path(source))) is not None:
        return found
    if not is_identifier(source):
        raise ConfigError(
            f"sweep.resume={source}: is neither the folder of a sweep, with a {FILE}, nor a sweep's or run's id"
        )
    for path in Path(ROOT).rglob(FILE):
        if (found := read(path.parent)) is not None and found.id == source:
            return found
    folder = _folder_of_run(source, uri)
    if (found := read(folder)) is None:
        raise ConfigError(
            f"sweep.resume={source}: the sweep's folder {folder} is not here; give its place on this machine"
        )
    return found


def _resume(source: str, arguments: Sequence[str]) -> tuple[SweepManifest, list[str]]:
    others = [
        word for word in arguments if word not in _FLAGS and not word.lstrip("+").startswith((*_RESUMING, *_MAY_CHANGE))
    ]
    if others:
        raise ConfigError(
            f"sweep.resume={source}: resumes with the overrides that the sweep was begun with; leave out {others[0]}"
        )
    found = find(source, configuration.value_of(arguments, "tracking.uri"))
    changes = [word for word in arguments if word.startswith(_MAY_CHANGE)]
    return found, ["-m", *found.overrides, *changes, _override_of_folder(found), "sweep.skip_finished=true"]


def _override_of_folder(found: SweepManifest) -> str:
    return configuration.override("hydra.sweep.dir", found.folder)


def _newest(overrides: tuple[str, ...], chosen: str | None) -> SweepManifest | None:
    """Find the newest sweep that was begun with the same overrides."""
    paths = [Path(chosen) / FILE] if chosen is not None else list(Path(ROOT).rglob(FILE))
    paths = sorted((path for path in paths if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)
    sweeps = (read(path.parent) for path in paths)
    return next((found for found in sweeps if found is not None and found.overrides == overrides), None)


def _folder_of_run(run_id: str, uri: str | None) -> Path:
    try:
        folder = recorded.folder_of_run(run_id, uri)
    except TrackingError as error:
        raise ConfigError(f"sweep.resume={run_id}: no sweep below {ROOT}/ has this id, and {error}") from error
    if folder is None:
        raise ConfigError(f"sweep.resume={run_id}: the run does not say where its folder is; give the sweep's folder")
    return folder
