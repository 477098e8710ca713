"""``from_run=<run id or output folder>``: compose on what a run recorded, in place of today's ``conf/``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from fcnlab import config as configuration
from fcnlab.config import RECORD_FILE, Config
from fcnlab.config.roles import Role
from fcnlab.config.schema import keys_with
from fcnlab.core.errors import ConfigError, TrackingError, first_line
from fcnlab.experiment import resume
from fcnlab.recording import journal

if TYPE_CHECKING:
    from fcnlab.recording.inputs import Input

log = logging.getLogger(__name__)


def compose(overrides: Sequence[str] = ()) -> Config:
    """The configuration that ``python -m fcnlab.train <overrides>`` would use: a notebook's way in.

    Raises:
        ConfigError: In one line that names the key, for anything that cannot be composed or is out of range.
    """
    with primary(overrides) as name:
        config = configuration.compose(overrides, name)
    check(config, name)
    return config


@contextmanager
def primary(words: Sequence[str]) -> Iterator[str]:
    """Make the primary configuration that the words of a command line ask for; it lasts as long as the context.

    Yields:
        Its name: ``train``, or that of one with the values that the run of ``from_run=...`` or ``resume=...`` recorded.

    Raises:
        ConfigError: If there is nothing recorded there, or something that does not fit this version.
    """
    given = {key: configuration.value_of(words, key) for key in ("from_run", "resume")}
    if given["resume"] == resume.AUTO:  # the same words as in the beginning
        del given["resume"]
    given = {key: source for key, source in given.items() if source is not None}
    if not given:
        yield "train"
        return
    if len(given) > 1:
        raise ConfigError(
            "from_run and resume: give one; from_run begins a new training, resume goes on with an old one"
        )
    ((key, source),) = given.items()
    text, recorded = _recorded(key, source, words)
    with ExitStack() as context:
        try:
            name = context.enter_context(configuration.recorded_base(recorded))
        except ConfigError as error:
            header = re.match(r"# (fcnlab \S+)", text)
            raise ConfigError(
                f"{key}={source}: {error}; recorded by {header[1] if header else 'an unknown version'}, so use that "
                f"one, or mend a copy of its {RECORD_FILE} and give the folder of the copy"
            ) from error
        yield name


def check(config: Config, name: str) -> None:
    """Refuse a configuration that says ``from_run`` or ``resume`` but was not composed on what that run recorded.

    Args:
        config: What was composed.
        name: The primary configuration that it was composed on.

    Raises:
        ConfigError: If the key stands in a file, or beside ``--config-name``.
    """
    for key, source in (("from_run", config.from_run), ("resume", config.resume)):
        if source not in (None, resume.AUTO) and name != configuration.RECORDED:
            raise ConfigError(
                f"{key}={source}: give it on the command line, not in a file and not beside --config-name"
            )


def compare_inputs(config: Config, inputs: Sequence[Input]) -> None:
    """Warn if the images are not those of the run that is reproduced.

    Args:
        config: With ``from_run``.
        inputs: What is trained on now.
    """
    try:
        then = _recorded_digests(str(config.from_run), config.tracking.uri)
    except TrackingError as error:
        log.warning("from_run=%s: whether the images are the same is unknown (%s)", config.from_run, error)
        return
    for item in inputs:
        if item.context in then and then[item.context] != item.digest:
            log.warning(
                "from_run=%s: the %s images are not those of that run (digest %s, then %s)",
                config.from_run,
                item.context,
                item.digest,
                then[item.context],
            )


def _recorded_digests(source: str, uri: str | None) -> dict[str, str]:
    if _is_run(source):
        from fcnlab.tracking.address import store_uri
        from fcnlab.tracking.store import Store

        return Store(store_uri(uri)).input_digests(source)
    entries = journal.read(Path(source) / journal.FILE)
    datasets = next((entry.fields["datasets"] for entry in entries if entry.kind == "inputs"), [])
    return {item["context"]: item["digest"] for item in datasets}


def _is_run(source: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", source) is not None


def _recorded(key: str, source: str, words: Sequence[str]) -> tuple[str, DictConfig]:
    """The recorded configuration, as text and parsed, without the store that it was recorded in."""
    uri = configuration.value_of(words, "tracking.uri")
    if key == "resume":
        text = resume.recorded_text(source, uri)
    else:
        text = _read_artifact(source, uri) if _is_run(source) else _read_file(source)
    try:
        recorded = OmegaConf.create(text)
        configuration.refuse_interpolations(recorded)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{key}={source}: {RECORD_FILE} is not YAML ({first_line(error)})") from error
    if not recorded or not OmegaConf.is_dict(recorded):
        raise ConfigError(f"{key}={source}: {RECORD_FILE} holds no configuration")
    # What is said anew for each start is no part of the experiment. The store may have moved since, and passwords are
    # not recorded: so a new run goes where any other would go, which is also where the recorded one was looked for, and
    # one that goes on, where it began. Nor is the new run a trial of the old one's sweep.
    for place in keys_with(Role.ANEW, Config()):
        section, _, name = place.rpartition(".")
        parent = OmegaConf.select(recorded, section) if section else recorded
        if OmegaConf.is_dict(parent):
            parent.pop(name, None)
    return text, recorded


def _read_file(source: str) -> str:
    try:
        return (Path(source) / RECORD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"from_run={source}: is neither a run id (32 hexadecimal digits) nor an output folder with a {RECORD_FILE}"
        ) from error


def _read_artifact(run_id: str, uri: str | None) -> str:
    # Not at the top: a command without from_run should not wait for MLflow.
    from fcnlab.tracking.address import store_uri
    from fcnlab.tracking.store import Store, require_database

    uri = store_uri(uri)
    try:
        require_database(uri)
        return Store(uri).read_text(run_id, RECORD_FILE)
    except TrackingError as error:
        hint = "tracking.uri=... names another store"
        raise ConfigError(f"from_run={run_id}: {str(error).removesuffix(f'; {hint}')}; {hint}") from error
