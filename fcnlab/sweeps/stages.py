"""Which trials a sweep in stages has, and what each of them starts from.

In a stage, every combination of the swept values is trained once. Such a combination is a chain through all stages: its
trial in a stage starts from the weights of its trial in the stage before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fcnlab.config import override
from fcnlab.core.errors import ConfigError
from fcnlab.recording import journal
from fcnlab.sweeps.result import TrialResult

SWEEPER = "fcnlab_stages.Stages"
"""The end of the name of the sweeper's class, by which its configuration is recognised."""

_INIT_FROM = "init_from"
_WEIGHTS = ("best", "last")


@dataclass(frozen=True)
class Stages:
    """The stages and chains of a sweep.

    Attributes:
        words: The overrides that set each stage apart, by their keys.
        axes: The keys that differ between stages or chains, with all their values.
        chains: The overrides of each chain, which are the same in all stages, by their keys.
        start_from: Which weights the next stage starts from: ``best`` or ``last``.
    """

    words: Sequence[Mapping[str, str]]
    axes: Mapping[str, Sequence[str]]
    chains: Sequence[Mapping[str, str]]
    start_from: str

    def number(self, stage: int, chain: int) -> int:
        """Return the number of the trial of a chain in a stage."""
        return stage * len(self.chains) + chain

    def overrides(self, stage: int, chain: int) -> list[str]:
        """Return the overrides of a trial, without those that say what it starts from."""
        found = {**self.words[stage], **self.chains[chain]}
        if stage > 0:
            found.pop(_INIT_FROM, None)  # it is for the first stage
        return list(found.values())

    def planned(self) -> list[list[str]]:
        """Return the overrides that set each trial apart, by its number."""
        trials = [self.overrides(stage, chain) for stage in range(len(self.words)) for chain in range(len(self.chains))]
        return [[word for word in trial if word.partition("=")[0] in self.axes] for trial in trials]

    def start(self, stage: int, chain: int, before: TrialResult | None) -> list[str]:
        """Return the overrides that say what a trial of a stage after the first starts from.

        Args:
            stage: The stage of the trial.
            chain: The chain of the trial.
            before: The result of the chain's trial in the stage before; None if there is none.

        Raises:
            ConfigError: If that trial has no weights to start from.
        """
        number = self.number(stage - 1, chain)
        if before is None or not before.succeeded:
            raise ConfigError(f"starts from trial {number}, which is {before.status if before else 'missing'}")
        weights = Path(before.folder) / journal.CHECKPOINTS / f"{self.start_from}.safetensors"
        if not weights.is_file():
            raise ConfigError(f"starts from trial {number}, which has no {weights.name}")
        here = Path.cwd()  # as the other paths of a configuration, it outlives a move of the working directory
        weights = weights.relative_to(here) if weights.is_relative_to(here) else weights
        return [override(_INIT_FROM, weights), f"sweep.starts_from={number}"]


def is_staged(sweeper: Mapping[str, Any]) -> bool:
    """Return whether a sweeper's configuration is that of a sweep in stages."""
    return str(sweeper.get("_target_")).endswith(f".{SWEEPER}")


def read(sweeper: Mapping[str, Any], overrides: Sequence[str]) -> Stages:
    """Return the stages of a sweep.

    Args:
        sweeper: The sweeper's configuration: ``stages``, ``start_from`` and ``params``.
        overrides: The overrides of the command line, which take precedence over those of the stages.

    Raises:
        ConfigError: If there are no stages, or they are not lists of keys and values.
    """
    stages = sweeper.get("stages")
    stages = OmegaConf.to_container(stages, resolve=True) if OmegaConf.is_config(stages) else stages
    _check(stages, sweeper.get("start_from"))
    given = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    choices: dict[str, list[str]] = {}
    for parsed in OverridesParser.create().parse_overrides([*given, *overrides]):
        key = parsed.get_key_element()
        if not parsed.is_sweep_override():
            choices[key] = [f"{key}={parsed.get_value_element_as_str()}"]
        elif parsed.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in parsed.sweep_string_iterator()]
        else:
            raise ConfigError(f"{parsed.input_line}: hydra/sweeper=stages takes values, and no range")
    words = [{key: _word(key, value) for key, value in stage.items() if key not in choices} for stage in stages]
    axes: dict[str, list[str]] = {}
    for stage in words:
        for key, word in stage.items():
            axes.setdefault(key, []).append(word.partition("=")[2])
    axes |= {key: [word.partition("=")[2] for word in found] for key, found in choices.items() if len(found) > 1}
    chains = [dict(zip(choices, chain, strict=True)) for chain in product(*choices.values())]
    return Stages(words, axes, chains, sweeper["start_from"])


def _check(stages: Any, start_from: Any) -> None:
    if start_from not in _WEIGHTS:
        raise ConfigError(f"hydra.sweeper.start_from={start_from}: choose one of {', '.join(_WEIGHTS)}")
    example = "as in [{arch: fcn32s}, {arch: fcn16s}]"
    if not isinstance(stages, list) or len(stages) < 2:
        raise ConfigError(f"hydra.sweeper.stages={stages}: give at least two stages, {example}")
    for number, stage in enumerate(stages):
        if not isinstance(stage, dict):
            raise ConfigError(f"hydra.sweeper.stages[{number}]={stage}: give the keys and values of a stage, {example}")
        for key in stage:
            if number > 0 and key == _INIT_FROM:
                raise ConfigError(
                    f"hydra.sweeper.stages[{number}].{key}: a stage starts from the one before; leave it out"
                )
            if str(key).startswith(("hydra", "sweep.")):
                raise ConfigError(f"hydra.sweeper.stages[{number}].{key}: is the same for all stages; give it outside")


def _word(key: str, value: Any) -> str:
    """Return the override that sets a key to a value of a YAML file."""
    if not isinstance(value, str):
        return f"{key}={json.dumps(value, ensure_ascii=False)}"  # which Hydra reads like YAML
    return f"{key}={value}" if re.fullmatch(r"[\w./+-]+", value) else override(key, value)
