"""Everything that is wrong with a folder of images and labels, not only the first problem."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fcnlab.config.schema import DatasetConfig, FolderConfig
from fcnlab.core.errors import DataError
from fcnlab.data import description
from fcnlab.data.dataset import SPLITS, Dataset
from fcnlab.data.image_folder import Folder
from fcnlab.data.sample_lists import read_stems
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


class _TestImages(Folder):
    """The files of a folder that a list names, whatever the lists of the other splits say."""

    def __init__(self, config: FolderConfig, test_list: Path) -> None:
        self._test_list = test_list
        super().__init__(config, "val")

    def _split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        return {"val": read_stems(str(self._test_list), "test_list", root, stems)}


def open_splits(config: DatasetConfig, findings: Findings) -> dict[str, Dataset]:
    """Return the splits that can be opened; the reason why another one cannot is added to the findings.

    The images that a prepared folder keeps for a test are a split, too.
    """
    opened = {}
    for split in (*SPLITS, "test"):
        try:
            dataset = _test_split(config) if split == "test" else DATASETS.get(config.name)(config, split)
        except DataError as error:
            if str(error) not in [problem for _, problem in findings.problems]:
                findings.problems.append((split, str(error)))
            continue
        if dataset is not None:
            opened[split] = dataset
    return opened


def _test_split(config: DatasetConfig) -> Dataset | None:
    """Return the images that a folder keeps for a test, which are files also where the others are records.

    Returns:
        None if it keeps none.

    Raises:
        DataError: If they, or the list of them, cannot be opened.
    """
    if not isinstance(config, FolderConfig) or not config.root:
        return None
    path = description.test_list(Path(config.root).expanduser())
    if path is None:
        return None
    return _TestImages(config, path)


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
    for line in lines(findings.near):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for place, problem in findings.problems[:_MOST_PROBLEMS]:
        console.print(f"{place}: {problem}", markup=False, highlight=False, soft_wrap=True)
    if len(findings.problems) > _MOST_PROBLEMS:
        console.print(f"and {len(findings.problems) - _MOST_PROBLEMS} more")
