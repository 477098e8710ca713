"""``resume=auto|<run id>|<path>``: resume an interrupted training in its own folder and its own run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnlab import config as configuration
from fcnlab.config import Config
from fcnlab.config.composition import MEAN
from fcnlab.config.roles import Role
from fcnlab.config.schema import flatten, leaves, role_of
from fcnlab.core import workers
from fcnlab.core.errors import CheckpointError, ConfigError, DataError, first_line
from fcnlab.experiment import recorded
from fcnlab.experiment.primary_config import AUTO, compose
from fcnlab.recording import journal

if TYPE_CHECKING:
    from fcnlab.recording.inputs import Input
    from fcnlab.training.state import TrainingState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """The point at which an interrupted training resumes.

    Attributes:
        folder: The training's output folder.
        state: The saved state to resume from; None if the training ended before it saved one, so that it starts over.
    """

    folder: Path
    state: TrainingState | None

    def with_recorded_mean(self, config: Config) -> Config:
        """Return the configuration with the mean that the training began with, where ``init_from`` chose that."""
        mean = (self._recorded_values() or {}).get(MEAN)
        if mean is None or not _takes_mean(config):
            return config
        return replace(config, dataset=replace(config.dataset, mean=list(mean)))

    def check(self, config: Config, inputs: Sequence[Input]) -> None:
        """Refuse to resume a different training.

        Args:
            config: The configuration to resume with.
            inputs: The images to resume with.

        Raises:
            ConfigError: If a key differs that cannot change within a training.
            DataError: If the images differ.
            CheckpointError: If another version of MindSpore wrote the state.
        """
        if self.state is not None:
            _check_version(self.state, config)
        values = self._recorded_values()
        if values is not None:
            _check_config(self.folder, values, config)
        digests = self._recorded_run().get("inputs", {})
        for item in inputs:
            if digests.get(item.context, item.digest) != item.digest:
                raise DataError(
                    f"{self.folder}: the {item.context} images are not those that its training began with (digest "
                    f"{item.digest}, then {digests[item.context]}): put them back, or start a new training with "
                    "init_from"
                )

    def _recorded_values(self) -> dict[str, Any] | None:
        text = self._recorded_run().get("config")
        return recorded.parse_values(text) if isinstance(text, str) else recorded.config_values(self.folder)

    def _recorded_run(self) -> dict[str, Any]:
        """The part of the state that describes the run that saved it."""
        return self.state.document.get("run", {}) if self.state is not None else {}


def hydra_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that make the folder of the training to resume Hydra's output folder.

    Args:
        overrides: The words of the command line.

    Raises:
        FcnlabError: If ``resume`` names nothing that can be resumed.
    """
    source = configuration.value_of(overrides, "resume")
    if source is None:
        return []
    flags = [word for word in overrides if word.startswith("-")]
    chosen = configuration.value_of(overrides, "hydra.run.dir")
    if source == AUTO:
        if flags or chosen is not None:
            return []
        folder = newest_training(compose(overrides))
    else:
        if {"-m", "--multirun"} & {*flags}:
            raise ConfigError(f"resume={source}: resumes one training; leave -m out, or use resume={AUTO}")
        folder = recorded.resumed_folder(source, configuration.value_of(overrides, "tracking.uri"))
        if chosen is not None and Path(chosen).resolve() != folder.resolve():
            raise ConfigError(
                f"hydra.run.dir={chosen}: resume={source} resumes the training in {folder}; leave hydra.run.dir out"
            )
    if folder is None:
        return []
    # Without a subfolder, .hydra keeps what the training was started with.
    return [configuration.override("hydra.run.dir", folder), "hydra.output_subdir=null"]


def refuse_occupied(overrides: Sequence[str]) -> None:
    """Refuse an output folder on the command line that holds a training already, unless that one is resumed.

    Raises:
        TrackingError: If the folder holds a training.
    """
    chosen = configuration.value_of(overrides, "hydra.run.dir")
    if chosen is None or any(word.startswith("-") for word in overrides):
        return
    if configuration.value_of(overrides, "resume") is None:
        journal.refuse_occupied(Path(chosen))


def find(config: Config, folder: Path | None) -> ResumePoint | None:
    """Find the training that ``config.resume`` names.

    Args:
        config: A configuration with ``resume``.
        folder: The output folder, if it is settled.

    Returns:
        None if ``resume`` is ``auto`` and there is nothing to resume.

    Raises:
        FcnlabError: If it names nothing that can be resumed, or every state is damaged.
    """
    # Not at the top: every command imports this module, and MindSpore takes seconds.
    from fcnlab.training.state import StateFolder, read_state

    state = None
    if config.resume == AUTO:
        folder = folder or newest_training(config)
        if folder is None or not (folder / journal.FILE).is_file():
            log.info("resume=auto: there is nothing to resume, so a new training begins")
            return None
    else:
        folder = recorded.resumed_folder(config.resume, config.tracking.uri)
        if recorded.is_state(config.resume):
            state = read_state(Path(config.resume))
    if journal.is_being_written(folder):
        raise journal.being_written(folder)
    if state is None:
        state = StateFolder(folder / journal.CHECKPOINTS).newest()
    if state is None:
        log.warning("%s: the training ended before its first state was saved, so it starts over", folder)
    else:
        log.info("%s: resumes from %s, after step %d", folder, state.path.name, state.progress.steps)
    return ResumePoint(folder, state)


def found_elsewhere(folder: Path, state: str | None) -> ResumePoint:
    """Return the point that another worker has found.

    Args:
        folder: The training's output folder.
        state: The file of its state, if there is one.

    Raises:
        CheckpointError: If the file is not here, or damaged.
    """
    from fcnlab.training.state import read_state

    return ResumePoint(folder, None if state is None else read_state(Path(state)))


def newest_training(config: Config, roots: Sequence[str] = ("outputs",), finished: bool = False) -> Path | None:
    """Return the folder of a configuration's newest training that can be resumed; None if there is none.

    A training that still runs is left out.

    Args:
        config: The configuration that the training must have, apart from keys of the role MACHINE.
        roots: The folders to look below.
        finished: Whether a finished training counts, too.
    """
    for folder in sorted(_trainings_below(roots), key=_last_change, reverse=True):
        try:
            if not is_of(config, folder) or journal.is_being_written(folder):
                continue
            if finished or not journal.is_finished(folder):
                return folder
        except Exception as error:  # it may be anybody's, with anything in it, and is no reason to resume no other
            log.warning("%s: is skipped, as it cannot be read (%s)", folder, first_line(error))
    return None


def _trainings_below(roots: Sequence[str]) -> list[Path]:
    """Return the folders that hold a journal; a folder that cannot be listed is passed over."""
    found = (Path(folder) for root in roots for folder, _, names in os.walk(root) if journal.FILE in names)
    return [folder for folder in found if (folder / journal.FILE).is_file()]  # rather than a pipe, which would block


def _last_change(folder: Path) -> float:
    try:
        return (folder / journal.FILE).stat().st_mtime
    except OSError:  # it was removed meanwhile
        return 0.0


def is_of(config: Config, folder: Path) -> bool:
    """Whether a folder holds the training of a configuration, apart from keys of the role MACHINE."""
    values = recorded.config_values(folder)
    return values is not None and values.get("dataset.root") == config.dataset.root and not _differences(values, config)


def _check_version(state: TrainingState, config: Config) -> None:
    import mindspore as ms

    from fcnlab import kernels
    from fcnlab.core.processor import describe_cpu

    then = state.document.get("versions", {}).get("mindspore")
    if then != ms.__version__:
        raise CheckpointError(
            f"{state.path}: was written with MindSpore {then}, and {ms.__version__} computes other numbers: use that "
            f"version, or start a new training from its weights with init_from={state.path}"
        )
    count, before = workers.current().count, state.document.get("workers", 1)
    if count != before:
        log.warning(
            "the state is of a training by %d worker%s: it is resumed by %d, but not bit for bit, and arch.norm=batch "
            "then normalises other shares of a batch",
            *(before, "s" if before > 1 else "", count),
        )
    now = {"cpu": describe_cpu(), "kernels": kernels.describe(bfloat16=config.trainer.amp == "bf16")}
    for key, what in (("cpu", "on another processor"), ("kernels", "with other operators")):
        if state.document.get(key) != now[key]:
            log.warning(
                "the training began %s (%s): it is resumed, but perhaps not bit for bit as there",
                what,
                state.document.get(key),
            )


def _check_config(folder: Path, values: Mapping[str, Any], config: Config) -> None:
    for key, (role, then, now) in _differences(values, config).items():
        if Role.FIXED in role:
            raise ConfigError(
                f"{key}={now}: the training in {folder} has {key}={then}, which cannot change in the middle; leave it "
                "as it was, or start a new training with init_from"
            )
        log.warning("%s=%s from here on; it was %s", key, now, then)


def _differences(values: Mapping[str, Any], config: Config) -> dict[str, tuple[Role, Any, Any]]:
    """Compare recorded values with a configuration, apart from keys of the role MACHINE.

    Returns:
        From each key that differs to its role, the recorded value and the new one. A fixed key that the training was
        recorded without had its default; another key that only one side has does not differ.
    """
    found = {}
    defaults = configuration.recorded_defaults({key: str(value) for key, value in values.items()})
    for key, value, metadata in leaves(config):
        recorded = _recorded_value(values, key, value)
        if not any(name == key or name.startswith(f"{key}.") for name in values) and Role.FIXED in role_of(metadata):
            recorded = value if defaults.get(key, str(value)) == str(value) else defaults[key]
        if recorded == value or value == configuration.MEDIAN_FREQUENCY:  # the weights that it stood for are recorded
            continue
        if key == MEAN and _takes_mean(config):
            continue
        if Role.MACHINE not in role_of(metadata):
            found[key] = (role_of(metadata), recorded, value)
    return found


def _takes_mean(config: Config) -> bool:
    """Whether the weights of ``init_from`` choose ``dataset.mean``, whatever it is before they are read."""
    return config.init_mean and config.init_from is not None


def _recorded_value(values: Mapping[str, Any], key: str, value: Any) -> Any:
    """Return what was recorded for a key; its own value if nothing was.

    Args:
        values: The recorded values by their dotted keys.
        key: The dotted name of the key.
        value: Its value now. The parts of a dictionary, which a plug-in's key may be, were recorded one by one.
    """
    if key in values or not isinstance(value, dict):
        return values.get(key, value)
    parts = {name.removeprefix(f"{key}."): part for name, part in values.items() if name.startswith(f"{key}.")}
    return value if not parts or parts == flatten(value) else parts
