"""Everything that is wrong with a folder of images and labels, not only the first of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fcnlab.config.schema import DatasetConfig
from fcnlab.core.errors import DataError
from fcnlab.data.dataset import Dataset
from fcnlab.registry import DATASETS


@dataclass
class Findings:
    """What a look at every pair found.

    Attributes:
        images: By split.
        pixels: Of each class by split, C int64, and of void.
        sizes: Smallest and largest height and width.
        problems: Pairs of what is wrong with and what it is, in the order of looking.
    """

    images: dict[str, int] = field(default_factory=dict)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    void: dict[str, int] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def open_splits(config: DatasetConfig, findings: Findings) -> dict[str, Dataset]:
    """The splits that can be opened; why another cannot is a finding."""
    opened = {}
    for split in ("train", "val"):
        try:
            opened[split] = DATASETS.get(config.name)(config, split)
        except DataError as error:
            problem = (split, str(error))
            if problem[1] not in [text for _, text in findings.problems]:
                findings.problems.append(problem)
    return opened


def look_at(
    findings: Findings, config: DatasetConfig, split: str, dataset: Dataset, seen: dict[str, str]
) -> Iterator[str]:
    """Open every pair of a split, one at each step.

    Args:
        findings: To add to.
        config: The classes.
        split: Its name.
        dataset: Its pairs.
        seen: From the digests of images to where they were seen first, over all splits.

    Yields:
        The name of what was looked at.
    """
    findings.images[split] = len(dataset)
    pixels = np.zeros(256, np.int64)
    for index, name in enumerate(dataset.names):
        yield name
        place = f"{split}: {name}"
        try:
            sample = dataset[index]
        except DataError as error:
            findings.problems.append((place, str(error)))
            continue
        counts = np.bincount(sample.label.ravel(), minlength=256)
        pixels += counts
        findings.sizes.append(sample.label.shape)
        if counts[config.ignore_index] == sample.label.size:
            findings.problems.append((place, "the label is void alone"))
        if sample.image.min() == sample.image.max():
            findings.problems.append((place, f"every pixel of the image is {sample.image.flat[0]}"))
        digest = hashlib.sha256(repr(sample.image.shape).encode() + sample.image.tobytes()).hexdigest()
        if digest in seen:
            findings.problems.append((place, f"the same image as {seen[digest]}"))
        seen.setdefault(digest, place)
    findings.void[split] = int(pixels[config.ignore_index])
    findings.pixels[split] = pixels[: config.num_classes]


def add_summary(findings: Findings, names: list[str]) -> None:
    """Classes that the training images do not have, or only they."""
    for split, pixels in findings.pixels.items():
        absent = [name for name, count in zip(names, pixels, strict=True) if count == 0]
        if absent and findings.images.get(split):
            findings.problems.append((split, f"no pixel of {', '.join(absent)}"))
