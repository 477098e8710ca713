"""Samples that are a file for the image and one for the label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from fcnlab.config.schema import DatasetConfig
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data import image_files
from fcnlab.data.background import map_ahead
from fcnlab.data.dataset import Dataset, Sample
from fcnlab.data.decode import read_file, read_label
from fcnlab.data.fingerprint import digest, digest_of
from fcnlab.data.remembered import stamp_of


class Pairs(Dataset):
    """Samples by name, each with the path of its image and of its label.

    A label is a single-channel or palette image. Without ``label_values`` its pixels are class indices; with it, the
    position of a value in the list is its class. ``ignore_index`` stands for itself unless the list has it.

    Args:
        config: What labels mean.
        root: The data set's folder.
        names: Of the samples, in order.
        images: At least theirs.
        labels: Likewise.
        label_values: The raw value of each class; empty: class indices.

    Raises:
        ConfigError: If ``label_values`` has a value twice or more values than there are classes.
    """

    def __init__(
        self,
        config: DatasetConfig,
        root: Path,
        names: Sequence[str],
        images: Mapping[str, Path],
        labels: Mapping[str, Path],
        label_values: Sequence[int] = (),
    ) -> None:
        self._read_as = config
        self._labelling = Labelling(config, label_values)
        self._channels, self._bits = config.channels, config.bits
        self._source = f"{config.name} {root.resolve()}"
        self._names = list(names)
        self._images = images
        self._labels = labels

    @property
    def names(self) -> list[str]:
        """The split's stems, in natural order."""
        return self._names

    @property
    def source(self) -> str:
        """The kind of data set and its folder's absolute path."""
        return self._source

    def __getitem__(self, index: int) -> Sample:
        name = self._names[index]
        image_path, label_path = self._images[name], self._labels[name]
        image = image_files.read(image_path, self._channels, self._bits)
        values = self._read_label(label_path)
        if values.shape != image.shape[:2]:
            raise DataError(
                f"label '{label_path}' is {_size(values)} pixels but image '{image_path}' is {_size(image)}: "
                "a label must have its image's size"
            )
        return Sample(image, self._labelling(values, label_path), name)

    def label(self, index: int) -> np.ndarray:
        """The label of sample ``index``, H x W uint8, without its image, which takes three times as long to decode.

        Raises:
            DataError: If its file is bad; that it has its image's size is not looked at.
        """
        path = self._labels[self._names[index]]
        return self._labelling(self._read_label(path), path)

    def fingerprint(self) -> str:
        """A digest of the split's files, by name and content, and of what their labels mean.

        Reading them for this, without decoding them, takes 6 to 20 % of what `check` does.

        Raises:
            DataError: For the first file, in order, that cannot be read.
        """
        return digest_of([self._labelling.meaning, list(map_ahead(self._stored, self._names, workers=2, ahead=4))])

    def stamp(self) -> str | None:
        """By the size and times of every file; see `fcnlab.data.remembered`.

        None for a class of another package: how that reads may change without anyone here noticing.
        """
        if not type(self).__module__.startswith("fcnlab.data."):
            return None
        return stamp_of(self._files(), self._read_as, type(self).__qualname__, self._names, self._labelling.meaning)

    def _files(self) -> Iterator[Path]:
        """What the samples are read from."""
        for name in self._names:
            yield self._images[name]
            yield self._labels[name]

    def _stored(self, name: str) -> list[str]:
        """The file names of a sample's image and label, each followed by its content's digest."""
        image, label = self._images[name], self._labels[name]
        return [
            f"{name}{image.suffix}",  # not its path's own name: see _files_by_stem on the forms of letters
            digest(read_file(image, "image")),
            f"{name}{label.suffix}",
            digest(read_file(label, "label")),
        ]

    def path_of(self, name: str) -> Path:
        """The file of a sample's image."""
        return self._images[name]

    def label_of(self, name: str) -> Path:
        """The file of a sample's label."""
        return self._labels[name]

    def _read_label(self, path: Path) -> np.ndarray:
        """A label's raw values, H x W."""
        return read_label(path, white=255 if 255 in self._labelling.values else 1)


class Labelling:
    """What the raw values of labels mean.

    Args:
        config: The classes.
        label_values: The raw value of each class; empty: class indices.

    Raises:
        ConfigError: If ``label_values`` has a value twice or more values than there are classes.
    """

    def __init__(self, config: DatasetConfig, label_values: Sequence[int] = ()) -> None:
        self.values = list(label_values) or list(range(config.num_classes))
        self.meaning = [self.values, config.num_classes, config.ignore_index, config.class_names]
        self._num_classes = config.num_classes
        self._table, self._known = _label_table(config, self.values)

    def __call__(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Turn raw values, H x W, into class indices, uint8.

        Raises:
            DataError: If a value means nothing; ``path`` is named.
        """
        if values.dtype == np.uint8:
            known = cv2.LUT(values, self._known.view(np.uint8)).view(bool)  # half the time of indexing
        else:  # may go beyond the table
            known = np.isin(values, np.flatnonzero(self._known))
        if not known.all():
            strange = np.unique(values[~known])
            raise DataError(
                f"label '{path}' has {some(strange.tolist())} outside the {self._num_classes} classes: set "
                "dataset.label_values to the raw value of each class, or raise dataset.num_classes"
            )
        return cv2.LUT(values, self._table) if values.dtype == np.uint8 else self._table[values]


def root_of(config: DatasetConfig) -> Path:
    """The data set's folder.

    Raises:
        DataError: If it is not set, or not there.
    """
    if not config.root:
        raise DataError("dataset.root is not set: give the folder that holds images and labels, dataset.root=<folder>")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(f"dataset.root: there is no folder '{root}'")
    return root


def _label_table(config: DatasetConfig, label_values: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each raw value its class (256 uint8), and whether it has one (256 bool)."""
    values = list(label_values)
    if len(set(values)) < len(values):
        raise ConfigError(f"dataset.label_values={values} has a value twice: each class needs its own")
    if len(values) > config.num_classes:
        raise ConfigError(
            f"dataset.label_values has {len(values)} values but dataset.num_classes is {config.num_classes}: "
            "a value for each class is enough"
        )
    table = np.zeros(256, np.uint8)
    known = np.zeros(256, bool)
    table[config.ignore_index] = config.ignore_index
    known[config.ignore_index] = True
    table[values] = np.arange(len(values))
    known[values] = True
    return table, known


def natural(stem: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sorting key under which runs of digits compare as numbers; equal numbers fall back on the text."""
    parts = re.findall(r"[0-9]+|[^0-9]+", stem)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], stem


def some(items: Iterable[object], limit: int = 5) -> str:
    """The first few items, for an error: ``3, 7, 9 and 12 more``."""
    ordered = sorted(items, key=lambda item: natural(str(item)))
    text = ", ".join(str(item) for item in ordered[:limit])
    return f"{text} and {len(ordered) - limit} more" if len(ordered) > limit else text


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
