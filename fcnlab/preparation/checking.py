"""Everything that is wrong with a folder of images and labels, not only the first problem."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fcnlab.config.schema import DatasetConfig
from fcnlab.core.errors import DataError
from fcnlab.data.dataset import SPLITS, TEST, Dataset
from fcnlab.data.test_split import open_test
from fcnlab.preparation.near_duplicates import NearDuplicates, lines
from fcnlab.registry import DATASETS

_MOST_PROBLEMS = 200


@dataclass
class Findings:
    """The faults and the numbers that opening every pair brought to light.

    Attributes:
        images: The number of images by split.
        pixels: The number of pixels of each class by split, C int64.
        void: The number of void pixels by split.
        sizes: The height and width of each image.
        problems: (place, problem) pairs, in order.
        near: The images that were seen, for near-duplicates in different splits.
    """

    images: dict[str, int] = field(default_factory=dict)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    void: dict[str, int] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    near: NearDuplicates = field(default_factory=NearDuplicates)


def open_splits(config: DatasetConfig, findings: Findings) -> dict[str, Dataset]:
    """Return the splits that can be opened; the reason why another one cannot is added to the findings.

    The test images, where a data set has some, are a split, too.
    """
    opened = {}
    factory = DATASETS.get(config.name)
    for split in (*SPLITS, TEST):
        try:
            dataset = open_test(factory, config) if split == TEST else factory(config, split)
        except DataError as error:
            if str(error) not in [problem for _, problem in findings.problems]:
                findings.problems.append((split, str(error)))
            continue
        if dataset is not None:
            opened[split] = dataset
    return opened


def check_pairs(
    findings: Findings, config: DatasetConfig, split: str, dataset: Dataset, seen: dict[str, str]
) -> Iterator[str]:
    """Open every pair of a split, one at each step.

    Args:
        findings: The findings so far, to which this split's findings are added.
        config: The classes.
        split: The name of the split.
        dataset: The split.
        seen: For the digest of each image of any split, the place where it was first seen.

    Yields:
        The name of the pair that is opened next.
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
        findings.near.add(split, name, sample.image)
        digest = hashlib.sha256(repr(sample.image.shape).encode() + sample.image.tobytes()).hexdigest()
        if digest in seen:
            findings.problems.append((place, f"the same image as {seen[digest]}"))
        seen.setdefault(digest, place)
    findings.void[split] = int(pixels[config.ignore_index])
    findings.pixels[split] = pixels[: config.num_classes]


def add_absent_classes(findings: Findings, class_names: list[str]) -> None:
    """Add a problem for each split that has no pixel of some class."""
    for split, pixels in findings.pixels.items():
        absent = [name for name, count in zip(class_names, pixels, strict=True) if count == 0]
        if absent and findings.images.get(split):
            findings.problems.append((split, f"no pixel of {', '.join(absent)}"))


def add_near_duplicates(findings: Findings) -> None:
    """Add a problem for each kind of near-duplicates that different splits have."""
    findings.problems += [("near-duplicates", line) for line in lines(findings.near)]


def show(findings: Findings, class_names: list[str]) -> None:
    """Print the findings to the terminal: a table of the classes, the sizes and the problems."""
    from rich import get_console
    from rich.markup import escape
    from rich.table import Table

    console = get_console()
    table = Table(title="Pixels of each class", title_justify="left")
    table.add_column("class", overflow="fold")
    for split in findings.pixels:
        table.add_column(split, justify="right")
    for index, name in enumerate(class_names):
        shares = [counts[index] / max(counts.sum(), 1) for counts in findings.pixels.values()]
        table.add_row(escape(name), *(f"{share:.2%}" for share in shares))
    table.add_section()
    table.add_row("void pixels", *(f"{count:,}" for count in findings.void.values()))
    table.add_row("images", *(f"{findings.images[split]:,}" for split in findings.pixels))
    console.print(table)
    if findings.sizes:
        heights, widths = zip(*findings.sizes, strict=True)
        console.print(f"{min(widths)} to {max(widths)} pixels wide, {min(heights)} to {max(heights)} high")
    told = {problem for _, problem in findings.problems}
    for line in lines(findings.near):
        if line in told:
            continue
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for place, problem in findings.problems[:_MOST_PROBLEMS]:
        console.print(f"{place}: {problem}", markup=False, highlight=False, soft_wrap=True)
    if len(findings.problems) > _MOST_PROBLEMS:
        console.print(f"and {len(findings.problems) - _MOST_PROBLEMS} more")
