"""What a word of a command line may become: the options of groups, the keys, and the values of keys.

Everything is read off the schema and the names of files: neither Hydra, MindSpore nor a plug-in is imported, so that a
shell may ask at each press of the tabulator key. The keys of a plug-in are therefore not among the candidates.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fcnlab.config.folder import config_folder
from fcnlab.config.schema import COMMANDS, MEDIAN_FREQUENCY, SCHEMAS
from fcnlab.metrics.names import SUMMARY
from fcnlab.registry import ENCODERS, REGISTRIES, TRANSFORMS

_FLAGS = ("--help", "--cfg", "--info", "--hydra-help")
_TRAINING_FLAGS = ("-m", "--multirun")
_HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")
_HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.launcher.n_jobs", "hydra.sweeper.n_trials")
_OF_A_TRAINING = "train"

_CHOSEN = re.compile(r"^  - (?:override )?([\w/]+): ([\w/]+)", re.MULTILINE)
"""A line of a primary configuration that picks an option of a group."""


def candidates(command: str, words: Sequence[str]) -> list[str]:
    """Return what the last word may become, sorted.

    Args:
        command: A command that Hydra configures, one of `COMMANDS`.
        words: The words behind the command up to the cursor; the last one is being typed, and may be empty.

    Returns:
        Whole words. One that ends with ``=`` or ``.`` goes on. There are none where any text or path may follow.
    """
    *before, word = words
    if word.startswith("-"):
        found = [*_FLAGS, *(_TRAINING_FLAGS if command == _OF_A_TRAINING else ())]
    elif "=" in word:
        key, _, value = word.partition("=")
        listed, comma, _ = value.rpartition(",")  # of the options that -m runs one after the other
        found = [f"{key}={listed}{comma}{one}" for one in _values(command, before, key)]
    else:
        found = _keys(command, before, word)
    return sorted({one for one in found if one.startswith(word)})


def _keys(command: str, before: Sequence[str], word: str) -> Iterator[str]:
    """Yield groups and keys; of a section that the word has not reached yet, only its name."""
    yield from (f"{group}=" for group in _groups(command))
    leaves = [key for key, *_ in _leaves(command, before)]
    for key in [*leaves, *(_HYDRA_KEYS if command == _OF_A_TRAINING else ())]:
        reached = word.count(".")
        parts = key.split(".")
        yield f"{key}=" if len(parts) <= reached + 1 else ".".join(parts[: reached + 1]) + "."


def _values(command: str, before: Sequence[str], key: str) -> Iterator[str]:
    """Yield the values of a key, or the options of a group."""
    if key in _groups(command):
        yield from _options(key)
        return
    for name, value, field in _leaves(command, before):
        if name == key:
            yield from map(str, field.metadata.get("choices", ()))
            if "bool" in str(field.type):
                yield from ("true", "false")
            if "Optional" in str(field.type) and value is None:
                yield "null"
    yield from _NAMED.get(key, lambda: ())()


_NAMED: Mapping[str, Any] = {
    "arch.encoder": lambda: ENCODERS.names(),
    "augment.extra": lambda: (f"[{name}]" for name in TRANSFORMS.additional()),
    "loss.class_weights": lambda: (MEDIAN_FREQUENCY,),
    "resume": lambda: ("auto",),
    "trainer.monitor": lambda: ("val/loss", *SUMMARY),
}
"""The values of keys whose type does not say them."""


def _groups(command: str) -> list[str]:
    """Return the groups of which a command picks an option."""
    found = [group for group in _chosen(command) if not group.startswith("hydra/")]
    return [*found, *(_HYDRA_GROUPS if command == _OF_A_TRAINING else ())]


def _options(group: str) -> Iterator[str]:
    folder = config_folder() / group
    for path in folder.rglob("*.yaml"):
        yield path.relative_to(folder).with_suffix("").as_posix()
    if group in REGISTRIES:
        yield from REGISTRIES[group].additional()


def _leaves(command: str, before: Sequence[str]) -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Yield every key of a command with its default and its field, those of the options that are picked so far."""
    picked = dict(item for word in before if len(item := word.split("=", 1)) == 2)
    chosen = _chosen(command)
    for field in dataclasses.fields(COMMANDS[command]):
        if field.name in SCHEMAS:
            option = picked.get(field.name, chosen.get(field.name, "null"))
            known = SCHEMAS[field.name]
            classes = {known[name] for name in option.split(",") if name in known} or set(known.values())
            for cls in classes:
                yield from _fields(cls(), f"{field.name}.")
        else:
            yield from _fields_of(field, getattr(COMMANDS[command](), field.name), "")


def _fields(section: Any, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field]]:
    for field in dataclasses.fields(section):
        yield from _fields_of(field, getattr(section, field.name), prefix)


def _fields_of(field: dataclasses.Field, value: Any, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field]]:
    if dataclasses.is_dataclass(value):
        yield from _fields(value, f"{prefix}{field.name}.")
    else:
        yield f"{prefix}{field.name}", value, field


def _chosen(command: str) -> dict[str, str]:
    """Return the option of each group that a command picks by default; ``null`` stands for none."""
    return dict(_CHOSEN.findall((config_folder() / f"{command}.yaml").read_text(encoding="utf-8")))
