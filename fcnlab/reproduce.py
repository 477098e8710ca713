"""``from_run=<run id or output folder>``: compose on what a run recorded, in place of today's ``conf/``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from fcnlab import config as configuration
from fcnlab.config import RECORD_FILE, Config
from fcnlab.errors import ConfigError, TrackingError, first_line
from fcnlab.tracking import journal

if TYPE_CHECKING:
    from fcnlab.tracking.recorder import Input

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
        Its name: ``train``, or that of one with the values that the run of ``from_run=...`` recorded.

    Raises:
        ConfigError: If there is nothing recorded there, or something that does not fit this version.
    """
    source = _value(words, "from_run")
    if source is None:
        yield "train"
        return
    text, recorded = _recorded(source, words)
    with ExitStack() as context:
        try:
            name = context.enter_context(configuration.recorded_base(recorded))
        except ConfigError as error:
            header = re.match(r"# (fcnlab \S+)", text)
            raise ConfigError(
                f"from_run={source}: {error}; recorded by {header[1] if header else 'an unknown version'}, so use that "
                f"one, or mend a copy of its {RECORD_FILE} and give the folder of the copy"
            ) from error
        yield name


def check(config: Config, name: str) -> None:
    """Refuse a configuration that says ``from_run`` but was not composed on what that run recorded.

    Args:
        config: What was composed.
        name: The primary configuration that it was composed on.

    Raises:
        ConfigError: If ``from_run`` stands in a file, or beside ``--config-name``.
    """
    if config.from_run is not None and name != configuration.RECORDED:
        raise ConfigError(
            f"from_run={config.from_run}: give it on the command line, not in a file and not beside --config-name"
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
        from fcnlab.tracking.store import Store, store_uri

        return Store(store_uri(uri)).input_digests(source)
    entries = journal.read(Path(source) / journal.FILE)
    datasets = next((entry.fields["datasets"] for entry in entries if entry.kind == "inputs"), [])
    return {item["context"]: item["digest"] for item in datasets}


def _is_run(source: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", source) is not None


def _value(words: Sequence[str], key: str) -> str | None:
    """What words set a key to; the last one counts, as for Hydra."""
    words = [word for word in words if re.match(rf"\+*{re.escape(key)}=", word)]
    if not words:
        return None
    try:
        override = OverridesParser.create().parse_override(words[-1])
    except HydraException as error:
        raise ConfigError(f"{words[-1]}: {error}; quote the value twice, as in '{key}=\"...\"'") from error
    if override.is_sweep_override():
        raise ConfigError(f"{words[-1]}: give one value; from_run goes with sweeps over other keys")
    value = override.value()
    return None if value is None else str(value)


def _recorded(source: str, words: Sequence[str]) -> tuple[str, DictConfig]:
    """The recorded configuration, as text and parsed, without the store that it was recorded in."""
    text = _read_artifact(source, _value(words, "tracking.uri")) if _is_run(source) else _read_file(source)
    try:
        recorded = OmegaConf.create(text)
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"from_run={source}: {RECORD_FILE} is not YAML ({first_line(error)})") from error
    if not recorded or not OmegaConf.is_dict(recorded):
        raise ConfigError(f"from_run={source}: {RECORD_FILE} holds no configuration")
    # A place, no part of the experiment: the store may have moved since, and passwords are not recorded. So a new run
    # goes where any other would go, which is also where the recorded one was looked for.
    OmegaConf.update(recorded, "tracking.uri", None)
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
    from fcnlab.tracking.store import Store, store_uri

    uri = store_uri(uri)
    database = uri.removeprefix("sqlite:///").partition("?")[0]
    try:
        if uri.startswith("sqlite:///") and not Path(database).exists():  # MLflow would make it
            raise TrackingError(f"tracking store {uri}: no such file")
        return Store(uri).read_text(run_id, RECORD_FILE)
    except TrackingError as error:
        raise ConfigError(f"from_run={run_id}: {error}; tracking.uri=... names another store") from error
