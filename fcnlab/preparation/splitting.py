"""Splits that keep together what belongs together: slices of a stack, tiles of an image, a video, a patient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fcnlab.config.schema import PrepareConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data.sample_names import first_few

STACK, FOLDER = "stack", "folder"

_TILE = re.compile(
    r"(.+?)[_-](?:tile|patch|crop)[_-]?\d+(?:[_-]\d+)?$|(.+?)[_-]x\d+[_-]?y\d+$|(.+?)[_-]r(?:ow)?\d+[_-]?c(?:ol)?\d+$",
    re.IGNORECASE,
)
"""How the names of tiles end, such as ``slide_tile_3_4``, ``slide_x0_y512`` and ``slide_row1_col2``."""


class Item(Protocol):
    """What a split asks of an image."""

    name: str
    split: str | None
    stack: str | None
    folder: str


@dataclass
class Drawn:
    """The splits of a data set.

    Attributes:
        splits: The names of each split, in order: ``train``, ``val`` and ``test``.
        groups: The group of each image.
        described: How the splits were drawn: keys of the configuration with their values.
        notes: Lines that say what was kept together.
    """

    splits: dict[str, list[str]]
    groups: list[str]
    described: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def assign(config: PrepareConfig, images: Sequence[Item]) -> Drawn:
    """Assign each image to a split: as the source says, or drawn by ``split_seed`` from whole groups.

    With ``folds``, all images but those of the test are for training until `deal` deals them to folds.

    Raises:
        DataError: If a split would be empty.
        ConfigError: If keys contradict each other or the source.
    """
    names = [image.name for image in images]
    stated = {image.name: image.split for image in images}
    if config.folds is not None and config.fold >= config.folds:
        raise ConfigError(f"fold={config.fold}: there are the folds 0 to {config.folds - 1} (folds={config.folds})")
    if any(stated.values()):
        return _as_stated(config, images, stated)
    groups = group_names(names, [image.stack for image in images], [image.folder for image in images], config.group_by)
    fractions = {"val": 0.0 if config.folds else config.val_fraction, "test": config.test_fraction}
    if sum(fractions.values()) >= 1:
        raise ConfigError("val_fraction and test_fraction: leave some of the images for training")
    keys = {"val_fraction": not config.folds, "test_fraction": config.test_fraction > 0, "group_by": config.group_by,
            "fold": config.folds, "split_seed": True}  # fmt: skip
    described = {key: getattr(config, key) for key, counts in keys.items() if counts}
    count, needed = len(set(groups)), 1 + sum(share > 0 for share in fractions.values())
    if len(names) < max(needed, 2):
        raise DataError(
            f"source={config.source} has {len(names)} images, and two splits need at least {max(needed, 2)}"
        )
    is_one_stack = count == 1 and images[0].stack is not None
    if is_one_stack and count < needed and config.group_by is None and config.folds is None:
        splits = _blocks(names, fractions)
        line = (
            "all images are of one file, so that the last ones validate: its neighbours across the border are alike, "
            "and since pages of one file resemble each other, a comparison takes them for one image, unless group_by "
            "says which of them are independent"
        )
        return Drawn(splits, groups, described, [line])
    notes = []
    if count < len(names):
        notes.append(
            f"{len(names)} images are in {count} groups that no split divides, such as '{_largest(groups)}' "
            f"({config.group_by or 'pages of one file, tiles of one image'}); group_by says otherwise"
        )
    splits = (
        {"train": names, "val": [], "test": []} if needed == 1 else draw(names, groups, fractions, config.split_seed)
    )
    return Drawn(splits, groups, described, notes)


def deal(config: PrepareConfig, drawn: Drawn, pixels: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Deal the images that are not for a test to folds, of which one validates.

    Args:
        config: The keys of the split.
        drawn: The splits so far, whose training and validation images are changed.
        pixels: The number of pixels of each class in each image, C int64.

    Returns:
        The names of each fold; an empty list where none are asked for.

    Raises:
        DataError: If there are fewer groups than folds.
    """
    if config.folds is None:
        return []
    group_of = dict(zip((name for name in pixels), drawn.groups, strict=True))
    names = [name for name in pixels if name not in set(drawn.splits["test"])]
    folds = fold_of(
        [group_of[name] for name in names],
        np.array([pixels[name] for name in names]),
        config.folds,
        config.split_seed,
    )
    members = [
        [name for name, fold in zip(names, folds, strict=True) if fold == number] for number in range(config.folds)
    ]
    validation = set(members[config.fold])
    drawn.splits["train"] = [name for name in names if name not in validation]
    drawn.splits["val"] = members[config.fold]
    return members


def _as_stated(config: PrepareConfig, images: Sequence[Item], stated: Mapping[str, str | None]) -> Drawn:
    """Return the splits of a source that is split already, in which pages and tiles belong together, too."""
    for key, default in (("folds", None), ("group_by", None), ("test_fraction", 0.0)):
        if getattr(config, key) != default:
            raise ConfigError(f"{key}: the source is split already; set images=... and labels=... to read one folder")
    names = [image.name for image in images]
    splits = {split: [name for name in names if stated[name] == split] for split in ("train", "val", "test")}
    if not splits["train"] or not splits["val"]:
        there = [split for split, members in splits.items() if members]
        raise DataError(
            f"source={config.source} has folders for {' and '.join(there)} alone: add one for training and one for "
            "validation, or set images=... and labels=... to read one folder"
        )
    groups = group_names(names, [image.stack for image in images], [image.folder for image in images], None)
    return Drawn(splits, groups, {})


def _blocks(names: Sequence[str], fractions: Mapping[str, float]) -> dict[str, list[str]]:
    """Return splits that are blocks of neighbours: first those for training, the test's last.

    Each split whose fraction is above 0, and the training, has at least one image.
    """
    rest, splits = list(names), {}
    left = sum(share > 0 for share in fractions.values())  # the images that earlier splits and the training need
    for split, share in reversed(fractions.items()):
        count = min(max(1, round(len(names) * share)), len(rest) - left) if share > 0 else 0
        left -= share > 0
        rest, splits[split] = rest[: len(rest) - count], rest[len(rest) - count :]
    return {"train": rest, **dict(reversed(splits.items()))}


def _largest(groups: Sequence[str]) -> str:
    return Counter(groups).most_common(1)[0][0]


def group_names(
    names: Sequence[str], stacks: Sequence[str | None], folders: Sequence[str], group_by: str | None
) -> list[str]:
    """Return the group of each image; a split has all images of a group or none.

    Args:
        names: The names of the images.
        stacks: The file of each image that is a page of a stack; None for the others.
        folders: The folder of each image.
        group_by: ``stack``, ``folder``, or a regular expression that is searched in the names, whose first group, or
            else the whole match, names the group. None groups the pages of one file, and tiles of one image.

    Raises:
        ConfigError: If it is no regular expression, or is not found in some name.
    """
    if group_by == FOLDER:
        return list(folders)
    if group_by == STACK:
        return [f"stack {stack}" if stack is not None else name for name, stack in zip(names, stacks, strict=True)]
    if group_by is None:
        return [
            f"stack {stack}" if stack is not None else _tiled(name) for name, stack in zip(names, stacks, strict=True)
        ]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ConfigError(
            f"group_by={group_by}: is neither {STACK}, {FOLDER} nor a regular expression ({error})"
        ) from None
    groups = []
    for name in names:
        found = pattern.search(name)
        part = None if found is None else found[1] if pattern.groups else found[0]
        if part is None:
            raise ConfigError(
                f"group_by={group_by}: is not found in the name '{name}': extend it so that it names each image's group"
            )
        groups.append(part)
    return groups


def _tiled(name: str) -> str:
    found = _TILE.match(name)
    return name if found is None else f"tiles of {next(part for part in found.groups() if part is not None)}"


def draw(
    names: Sequence[str], groups: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Draw splits from whole groups.

    Args:
        names: The names of the images.
        groups: The group of each.
        fractions: The share of the images of each split but ``train``, which takes the rest.
        seed: The seed of the draw.

    Returns:
        The names of each split in the order of ``names``, ``train`` first.

    Raises:
        DataError: If there are fewer groups than splits, so that one would be empty.
    """
    sizes = Counter(groups)
    ordered = list(dict.fromkeys(groups))
    wanted = {split: share for split, share in fractions.items() if share > 0}
    if len(ordered) <= len(wanted):
        raise DataError(
            f"there are {len(names)} images in {len(ordered)} groups, such as {first_few(ordered, 3)}, and "
            f"{len(wanted) + 1} splits need a group each: set `group_by` to what tells more groups apart"
        )
    shuffled = [ordered[position] for position in np.random.default_rng(seed).permutation(len(ordered)).tolist()]
    chosen: dict[str, str] = {}
    left = len(wanted)  # the groups that later splits need at least, and one for training
    for split, share in wanted.items():
        target, count = max(1, round(len(names) * share)), 0
        while len(shuffled) > left and (count == 0 or abs(count + sizes[shuffled[0]] - target) < abs(count - target)):
            group = shuffled.pop(0)
            chosen[group] = split
            count += sizes[group]
        left -= 1
    splits: dict[str, list[str]] = {split: [] for split in ("train", *fractions)}
    for name, group in zip(names, groups, strict=True):
        splits[chosen.get(group, "train")].append(name)
    return splits


def fold_of(groups: Sequence[str], pixels: np.ndarray, folds: int, seed: int) -> list[int]:
    """Deal groups to folds so that each fold has about the same number of images and of pixels of each class.

    The groups that hold most of some class are dealt first, each to the fold that stays closest to an equal share
    (Sechidis et al., ECML 2011, deal labels in a like order).

    Args:
        groups: The group of each image.
        pixels: The number of pixels of each class in each image, N x C.
        folds: The number of folds.
        seed: The seed that breaks ties.

    Returns:
        The fold of each image.

    Raises:
        DataError: If there are fewer groups than folds.
    """
    ordered = list(dict.fromkeys(groups))
    if len(ordered) < folds:
        raise DataError(
            f"folds={folds}: there are {len(ordered)} groups of images, such as {first_few(ordered, 3)}: set "
            "`group_by` to what tells more groups apart, or lower `folds`"
        )
    place = {group: index for index, group in enumerate(ordered)}
    amounts = np.zeros((len(ordered), pixels.shape[1] + 1))
    for group, counts in zip(groups, pixels, strict=True):
        amounts[place[group], :-1] += counts
        amounts[place[group], -1] += 1
    amounts /= np.maximum(amounts.sum(axis=0), 1)  # shares of each class, and of the images
    random = np.random.default_rng(seed)
    order = np.lexsort((random.permutation(len(ordered)), -amounts.max(axis=1)))
    held, count, dealt = np.zeros((folds, amounts.shape[1])), np.zeros(folds, int), np.zeros(len(ordered), int)
    for number, group in enumerate(order.tolist()):
        # As many folds as are still empty need one of the groups that are left.
        free = np.flatnonzero(count == 0) if len(ordered) - number <= (count == 0).sum() else np.arange(folds)
        cost = [(((held[fold] + amounts[group]) ** 2 - held[fold] ** 2).sum(), fold) for fold in free.tolist()]
        fold = min(cost)[1]
        held[fold] += amounts[group]
        count[fold] += 1
        dealt[group] = fold
    return [int(dealt[place[group]]) for group in groups]
