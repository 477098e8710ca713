"""``dataset.yaml``: what a folder says of itself, so that nobody has to say it on the command line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import LARGEST_YAML, read_text, require_small_yaml, shown
from fcnlab.data.sample_lists import IN_ROOT
from fcnlab.metrics.names import why_refused

if TYPE_CHECKING:
    from fcnlab.config.schema import FolderConfig

FILE = "dataset.yaml"

INFORMATION = (
    *("source", "licence", "class_pixels", "meaning", "test_list"),
    *("val_fraction", "test_fraction", "group_by", "fold", "split_seed"),
)
"""Keys for people, which set nothing."""


def read(root: Path, types: Mapping[str, str]) -> dict[str, Any]:
    """Return the keys that a folder sets; none if it has no description.

    Args:
        root: The folder.
        types: The keys that it may set, each with its type as an annotation, such as ``list[str]``.

    Raises:
        DataError: If the file is not YAML, or sets something unknown, of the wrong type, or classes that cannot be
            told apart by their names.
    """
    path, found = root / FILE, {}
    for key, value in _document(root).items():
        if key in INFORMATION:
            continue
        if key not in types:
            raise DataError(f"'{path}': {shown(key)}: no such key; known are {', '.join((*types, *INFORMATION))}")
        if not _fits(value, types[key]):
            raise DataError(f"'{path}': {key}: {shown(value)} is not what this key takes ({types[key]})")
        if key in ("images", "labels", "train_list", "val_list") and _leaves_folder(str(value)):
            raise DataError(f"'{path}': {key}: {shown(value)} leads out of the folder")
        found[key] = value
    if "class_names" in found:
        reason = why_refused(found["class_names"])
        if reason is not None:
            raise DataError(f"'{path}': class_names: {reason}")
        found.setdefault("num_classes", len(found["class_names"]))
    return found


def apply(config: FolderConfig, types: Mapping[str, str], defaults: Mapping[str, Any]) -> FolderConfig:
    """Return a folder's configuration in which its description sets every key that was left at its default.

    Its lists are marked as those of the folder, so that the configuration is the same wherever the folder is, and no
    list of the same name in the working directory is meant.

    Args:
        config: The configuration as composed.
        types: The keys that a description may set; see `read`.
        defaults: The default of every key that the user has not set.

    Raises:
        DataError: As `read` does.
    """
    if not config.root:
        return config
    root = Path(config.root).expanduser()
    described = read(root, types).items()
    found = {key: value for key, value in described if key in defaults and getattr(config, key) == defaults[key]}
    found |= {key: f"{IN_ROOT}{found[key]}" for key in ("train_list", "val_list") if key in found}
    return dataclasses.replace(config, **found)


def test_list(root: Path) -> Path | None:
    """Return the list of the images that a folder keeps for a test; None if it names none.

    Raises:
        DataError: If the file is not YAML, or names a list out of the folder.
    """
    name = _document(root).get("test_list")
    if name is None:
        return None
    if not isinstance(name, str) or _leaves_folder(name):
        raise DataError(f"'{root / FILE}': test_list: {shown(name)} is no file in the folder")
    return root / name


def _document(root: Path) -> dict[Any, Any]:
    """Return what the description of a folder holds; nothing if it has none.

    Raises:
        DataError: If the file is not YAML of keys with values.
    """
    path = root / FILE
    if not os.path.lexists(path):
        return {}
    try:
        text = read_text(path, LARGEST_YAML)
        require_small_yaml(text)
        document = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"'{path}' is not readable YAML ({reason})") from None
    if not isinstance(document, dict):
        raise DataError(f"'{path}' must hold keys with values, such as class_names: [background, cell]")
    return document


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value has the type of a key that a description may set."""
    if annotation.startswith("list[list["):
        return isinstance(value, list) and all(_fits(row, "list[int]") for row in value)
    if annotation == "list[str]":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if annotation.startswith("list["):
        numbers = (int, float) if "float" in annotation else int
        return isinstance(value, list) and all(
            isinstance(item, numbers) and not isinstance(item, bool) for item in value
        )
    if annotation == "Optional[bool]":
        return isinstance(value, bool)
    if annotation in ("int", "Optional[int]"):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str)


def _leaves_folder(name: str) -> bool:
    path = Path(name)
    return path.is_absolute() or ".." in path.parts
