"""A study of two networks that stops by itself: which trainings it has, what it has found, and where that is kept.

A pair is a training of each with the same seed. `fcnlab.comparison.sequential` says after each pair whether the study
goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from fcnlab.comparison.conclusion import metric_in_words
from fcnlab.comparison.sequential import ALPHA, Design, Look
from fcnlab.core.errors import ConfigError
from fcnlab.core.files import replacing
from fcnlab.metrics.names import higher_is_better

SWEEPER = "fcnlab_verdict.Verdict"
"""The end of the name of the sweeper's class, by which its configuration is recognised."""

FILE = "verdict.json"
"""The name of the file in the sweep's folder, and among the artifacts of the parent run."""

_MOST_PAIRS = 100
_LIFTED = ("margin", "max_pairs")


@dataclass(frozen=True)
class Plan:
    """The trainings of a study.

    Attributes:
        key: The key that sets the two networks apart.
        values: Its two values.
        fixed: The overrides that are the same for all trainings.
        first_seed: The seed of the first pair; each later one is larger by 1.
    """

    key: str
    values: tuple[str, str]
    fixed: Sequence[str]
    first_seed: int

    def overrides(self, pair: int, side: int) -> list[str]:
        """Return the overrides of one of the two trainings of a pair, both of which count from 0."""
        return [*self.fixed, f"{self.key}={self.values[side]}", f"seed={self.first_seed + pair}"]

    @staticmethod
    def number(pair: int, side: int) -> int:
        """Return the number of the trial."""
        return 2 * pair + side


@dataclass(frozen=True)
class Study:
    """What a study has found, look by look.

    Attributes:
        key: The key that sets the two networks apart.
        values: Its two values; a difference is the first's value less the second's.
        monitor: The metric that is compared.
        margin: The largest difference that does not matter; None if every difference matters.
        max_pairs: The number of pairs at most.
        seeds: The seed of each pair.
        first: The metric of the first network for each seed.
        second: The metric of the second network for each seed.
        looks: What was known after each pair.
        failed: Why the study could not go on; None if it could.
    """

    key: str
    values: tuple[str, str]
    monitor: str
    margin: float | None
    max_pairs: int
    seeds: list[int]
    first: list[float]
    second: list[float]
    looks: list[Look]
    failed: str | None = None

    @property
    def differences(self) -> list[float]:
        """The difference of each pair."""
        return [one - other for one, other in zip(self.first, self.second, strict=True)]

    @property
    def word(self) -> str:
        """The decision in a word: ``better``, ``equivalent``, ``futile``, ``undecided``, or ``running``."""
        if self.failed is not None:
            return "undecided"
        decision = self.looks[-1].decision if self.looks else "continue"
        return {"different": "better", "continue": "running"}.get(decision, decision)

    @property
    def sentence(self) -> str:
        """The decision in a sentence: who is better, by how much, and how sure that is."""
        one, other = (value if self.key == "arch" else f"{self.key}={value}" for value in self.values)
        if not self.looks:
            if self.failed is not None:
                return f"It is undecided which of {one} and {other} is better: {self.failed}."
            return f"No pair of {one} and {other} is trained yet."
        look, metric = self.looks[-1], metric_in_words(self.monitor)
        if (look.mean < 0) == higher_is_better(self.monitor):
            one, other = other, one
        ends = sorted((look.low * math.copysign(1, look.mean), look.high * math.copysign(1, look.mean)))
        interval = "" if math.isnan(look.low) else f" (interval {ends[0]:.4f} to {ends[1]:.4f})"
        amount = f"{abs(look.mean):.4f} of {metric}{interval}"
        after = f"after {look.pairs} of at most {self.max_pairs} pairs of seeds, on these validation images"
        if self.failed is not None:
            return f"It is undecided whether {one} is better than {other}: {self.failed}."
        if look.mean == 0:
            return f"{one} and {other} are tied {after}: on average, both have the same {metric}."
        if look.decision == "different":
            return f"{one} is better than {other} by {amount}, {after}; all looks together err in {ALPHA:.0%} at most."
        if look.decision == "equivalent":
            return (
                f"{one} and {other} are equivalent, {after}: their difference of {amount} is within the margin of "
                f"{self.margin:g}; all looks together err in {ALPHA:.0%} at most."
            )
        if look.decision == "futile":
            return (
                f"It is undecided whether {one} is better than {other}, {after}: it leads by {amount}, and further "
                f"pairs would decide only with a probability of {look.hope:.0%}; a new study with other seeds and a "
                "larger max_pairs may decide."
            )
        if look.decision == "undecided":
            return f"It is undecided whether {one} is better than {other}, {after}: it leads by {amount}."
        return f"{one} leads {other} by {amount} {after}; the study goes on."

    def write(self, folder: Path) -> None:
        """Write what was found into the sweep's folder, in place of an earlier one.

        Raises:
            OSError: If the disk does not take the file.
        """
        document = {"decision": self.word, "sentence": self.sentence, **asdict(self)}
        with replacing(folder / FILE) as temporary:
            temporary.write_text(json.dumps(_without_nan(document), indent=1, ensure_ascii=False), encoding="utf-8")


def read_study(folder: Path) -> Study | None:
    """Read what a study has found; None if there is none yet, or it is damaged."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        looks = [
            Look(**{key: math.nan if value is None else value for key, value in look.items()})
            for look in document["looks"]
        ]
        given = {item.name: document[item.name] for item in fields(Study)}
        return Study(**{**given, "values": tuple(document["values"]), "looks": looks})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_verdict(sweeper: Mapping[str, Any]) -> bool:
    """Return whether a sweeper's configuration is that of a study that stops by itself."""
    return str(sweeper.get("_target_")).endswith(f".{SWEEPER}")


def lifted(overrides: Sequence[str]) -> list[str]:
    """Return overrides in which ``margin`` and ``max_pairs`` of ``hydra/sweeper=verdict`` have their full names."""
    if "hydra/sweeper=verdict" not in overrides:
        return list(overrides)
    return [f"hydra.sweeper.{word}" if word.partition("=")[0] in _LIFTED else word for word in overrides]


def read(sweeper: Mapping[str, Any], overrides: Sequence[str], seed: int) -> Plan:
    """Return the trainings of a study.

    Args:
        sweeper: The sweeper's configuration, with ``params``.
        overrides: The overrides of the command line.
        seed: The seed of the first pair, unless ``params`` or the overrides give it.

    Raises:
        ConfigError: If there are not exactly two networks to compare.
    """
    given = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    choices: dict[str, list[str]] = {}
    for parsed in OverridesParser.create().parse_overrides([*given, *overrides]):
        key = parsed.get_key_element()
        if not parsed.is_sweep_override():
            choices[key] = [str(parsed.get_value_element_as_str())]
        elif parsed.is_discrete_sweep():
            choices[key] = [str(value) for value in parsed.sweep_string_iterator()]
        else:
            raise ConfigError(f"{parsed.input_line}: hydra/sweeper=verdict takes two values, and no range")
    if len(choices.get("seed", ["0"])) > 1:
        raise ConfigError(
            "seed: hydra/sweeper=verdict chooses the seeds by itself; give the first one alone, as in seed=1"
        )
    swept = [key for key, values in choices.items() if len(values) > 1]
    if len(list(product(*(choices[key] for key in swept)))) != 2:
        raise ConfigError("hydra/sweeper=verdict compares two: give two values of one key, as in arch=fcn16s,fcn8s")
    if len(set(choices[swept[0]])) == 1:
        raise ConfigError(f"{swept[0]}={','.join(choices[swept[0]])}: are the same; give two different values")
    fixed = [f"{key}={values[0]}" for key, values in choices.items() if key not in (*swept, "seed")]
    return Plan(swept[0], tuple(choices[swept[0]]), fixed, _whole(choices["seed"][0]) if "seed" in choices else seed)


def design(sweeper: Mapping[str, Any]) -> tuple[Design, float | None]:
    """Return when a study may stop, and its margin, from the sweeper's configuration.

    Raises:
        ConfigError: If a value is out of its range.
    """
    for key in ("max_pairs", "min_pairs"):
        value = sweeper.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= _MOST_PAIRS:
            raise ConfigError(f"hydra.sweeper.{key}={value}: must be a whole number from 2 to {_MOST_PAIRS}")
    if sweeper["max_pairs"] < sweeper["min_pairs"]:
        raise ConfigError(
            f"max_pairs={sweeper['max_pairs']}: is below hydra.sweeper.min_pairs={sweeper['min_pairs']}, the pairs "
            "before the first look; raise max_pairs or lower hydra.sweeper.min_pairs"
        )
    margin, spending, hope = (sweeper.get(key) for key in ("margin", "spending", "least_hope"))
    if margin is not None and not (_is_number(margin) and 0 < margin < math.inf):
        raise ConfigError(f"margin={margin}: must be a number above 0, the largest difference that does not matter")
    if not (_is_number(spending) and 0.5 <= spending <= 5):
        raise ConfigError(f"hydra.sweeper.spending={spending}: must be a number from 0.5 to 5")
    if not (_is_number(hope) and 0 <= hope < 1):
        raise ConfigError(f"hydra.sweeper.least_hope={hope}: must be a number from 0 to below 1")
    return _design(sweeper["max_pairs"], sweeper["min_pairs"], float(spending), float(hope)), margin


@cache
def _design(max_pairs: int, min_pairs: int, spending: float, least_hope: float) -> Design:
    """Return a design; its levels take a second to compute."""
    return Design(max_pairs, min_pairs, spending, least_hope)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"seed={text}: must be a whole number, the seed of the first pair") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _without_nan(value: Any) -> Any:
    """Return a document in which NaN is null, since JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value
