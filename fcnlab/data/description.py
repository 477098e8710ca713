"""``dataset.yaml``: what a folder says of itself, so that nobody has to on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fcnlab.config.roles import Role
from fcnlab.config.schema import FolderConfig, keys_with
from fcnlab.core.errors import DataError
from fcnlab.metrics.names import why_refused

FILE = "dataset.yaml"

KEYS = tuple(keys_with(Role.DESCRIBED, FolderConfig()))
"""Of a data set's configuration, those that a folder may say."""

INFORMATION = ("source", "licence", "class_pixels")
"""What it says beside them, for people."""

_LARGEST = 2**20


def read(root: Path) -> dict[str, Any]:
    """The keys that a folder sets; none if it has no description.

    Raises:
        DataError: If the file is not YAML, or sets something unknown, of the wrong type, or classes that cannot be
            told apart by their names.
    """
    path = root / FILE
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is larger than 1 MiB")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"'{path}' is not readable YAML ({reason})") from None
    if not isinstance(document, dict):
        raise DataError(f"'{path}': must be keys with values, such as class_names: [background, cell]")
    known = {item.name: item for item in dataclasses.fields(FolderConfig)}
    found = {}
    for key, value in document.items():
        if key in INFORMATION:
            continue
        if key not in KEYS:
            raise DataError(f"'{path}': {key}: no such key; known are {', '.join((*KEYS, *INFORMATION))}")
        if not _fits(value, str(known[key].type)):
            raise DataError(f"'{path}': {key}: {value!r} is not what this key takes ({known[key].type})")
        if key in ("images", "labels", "train_list", "val_list") and _leaves(str(value)):
            raise DataError(f"'{path}': {key}: {value} leads out of the folder")
        found[key] = value
    if "class_names" in found:
        reason = why_refused(found["class_names"])
        if reason is not None:
            raise DataError(f"'{path}': class_names: {reason}")
        found.setdefault("num_classes", len(found["class_names"]))
    return found


def apply(config: FolderConfig, defaults: Mapping[str, Any]) -> FolderConfig:
    """A folder's configuration with what it says of itself, where a key was left at its default.

    Args:
        config: As composed.
        defaults: Of every key.

    Raises:
        DataError: As `read` does.
    """
    if not config.root:
        return config
    root = Path(config.root).expanduser()
    found = {key: value for key, value in read(root).items() if getattr(config, key) == defaults.get(key)}
    for key in ("train_list", "val_list"):
        if key in found:
            found[key] = str(root / found[key])  # not one of the same name in the working directory
    return dataclasses.replace(config, **found) if found else config


def _fits(value: Any, kind: str) -> bool:
    """Whether a value is of a field's type, of those that `KEYS` have."""
    if kind.startswith("list[list["):
        return isinstance(value, list) and all(_fits(row, "list[int]") for row in value)
    if kind == "list[str]":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind.startswith("list["):
        numbers = (int, float) if "float" in kind else int
        return isinstance(value, list) and all(
            isinstance(item, numbers) and not isinstance(item, bool) for item in value
        )
    if kind == "Optional[bool]":
        return isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str)


def _leaves(name: str) -> bool:
    path = Path(name)
    return path.is_absolute() or ".." in path.parts
