"""Chooses what a training's command line is composed on: ``conf/train.yaml``, or what a run recorded.

``from_run=<run id or output folder>`` and ``resume=<run id or path>`` compose on a recorded configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from fcnlab import config as configuration
from fcnlab.config import RECORD_FILE, Config
from fcnlab.config.roles import Role
from fcnlab.config.schema import keys_with
from fcnlab.core.errors import ConfigError, first_line
from fcnlab.core.foreign_files import require_small_yaml
from fcnlab.experiment import recorded

AUTO = "auto"
"""The value of ``resume`` that resumes the newest unfinished training of the same configuration, or begins one."""


def compose(overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that ``python -m fcnlab.train <overrides>`` would use, as a notebook needs it.

    Raises:
        ConfigError: In one line that names the key, for anything that cannot be composed or is out of range.
    """
    with registered(overrides) as name:
        config = configuration.compose(overrides, name)
    check(config, name)
    return config


@contextmanager
def registered(overrides: Sequence[str]) -> Iterator[str]:
    """Register the primary configuration that overrides ask for, as long as the context lasts.

    Yields:
        Its name: ``train``, or that of the values that the run of ``from_run=...`` or ``resume=...`` recorded.

    Raises:
        ConfigError: If the run recorded no configuration, or one that does not fit this version.
    """
    sources = {key: configuration.value_of(overrides, key) for key in ("from_run", "resume")}
    if sources["resume"] == AUTO:  # it resumes what the same overrides began
        del sources["resume"]
    sources = {key: source for key, source in sources.items() if source is not None}
    if not sources:
        yield "train"
        return
    if len(sources) > 1:
        raise ConfigError("from_run and resume: give one; from_run begins a new training, resume continues an old one")
    ((key, source),) = sources.items()
    read = recorded.config_text if key == "from_run" else recorded.resumed_config_text
    text = read(source, configuration.value_of(overrides, "tracking.uri"))
    base = _parse(text, f"{key}={source}")
    with ExitStack() as context:
        try:
            name = context.enter_context(configuration.recorded_base(base))
        except ConfigError as error:
            header = re.match(r"# (fcnlab \S+)", text)
            raise ConfigError(
                f"{key}={source}: {error}; recorded by {header[1] if header else 'an unknown version'}, so use that "
                f"one, or mend a copy of its {RECORD_FILE} and give the folder of the copy"
            ) from error
        yield name


def check(config: Config, name: str) -> None:
    """Refuse ``from_run`` or ``resume`` in a configuration that was not composed on what that run recorded.

    Args:
        config: The composed configuration.
        name: The name of the primary configuration that it was composed on.

    Raises:
        ConfigError: If the key stands in a file, or beside ``--config-name``.
    """
    for key, source in (("from_run", config.from_run), ("resume", config.resume)):
        if source not in (None, AUTO) and name != configuration.RECORDED:
            raise ConfigError(
                f"{key}={source}: give it on the command line, not in a file and not beside --config-name"
            )


def _parse(text: str, shown: str) -> DictConfig:
    """Parse a recorded configuration, without the keys that are given anew for each start."""
    try:
        require_small_yaml(text)
        config = OmegaConf.create(text)
        configuration.refuse_interpolations(config)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{shown}: {RECORD_FILE} is not YAML ({first_line(error)})") from error
    if not config or not OmegaConf.is_dict(config):
        raise ConfigError(f"{shown}: {RECORD_FILE} holds no configuration")
    # The store is one of these keys: it may have moved since, and passwords are not recorded. So a new run goes to the
    # store that the recorded run was looked up in, and a resumed one stays in its own.
    for key in keys_with(Role.ANEW, Config()):
        section, _, name = key.rpartition(".")
        parent = OmegaConf.select(config, section) if section else config
        if OmegaConf.is_dict(parent):
            parent.pop(name, None)
    return config
