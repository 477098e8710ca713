"""Samples of which each has a file for its image and a file for its label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data import image_files
from fcnlab.data.dataset import Dataset, Sample
from fcnlab.data.decode import JPEG_EXTENSIONS, read_file
from fcnlab.data.digests import digest, digest_of
from fcnlab.data.file_times import digest_of_files
from fcnlab.data.image_files import Page
from fcnlab.data.label_files import RawLabel, read_raw_label
from fcnlab.data.label_palettes import PaletteCheck
from fcnlab.data.orientation import Evidence, Turning, orientation_of, stated_size
from fcnlab.data.prefetch import map_ahead
from fcnlab.data.sample_names import first_few

if TYPE_CHECKING:
    from fcnlab.config.schema import DatasetConfig


class LabelledFiles(Dataset):
    """Samples by name, each with the path of its image and of its label.

    A label is a single-channel or palette image; `LabelValues` says what its pixels mean.

    Args:
        config: The data set's name, its images' channels and bits, and its classes.
        root: The data set's folder.
        names: The samples' names, in order.
        images: The path of each sample's image; there may be more.
        labels: The path of each sample's label; there may be more.
        label_values: The raw value of each class; if empty, labels hold class indices.

    Raises:
        ConfigError: As `LabelValues` does.
    """

    def __init__(
        self,
        config: DatasetConfig,
        root: Path,
        names: Sequence[str],
        images: Mapping[str, Path | Page],
        labels: Mapping[str, Path | Page],
        label_values: Sequence[int] = (),
    ) -> None:
        self._values = LabelValues(config, label_values)
        self._channels, self._bits, self._range = config.channels, config.bits, tuple(config.value_range)
        self._source = f"{config.name} {root.resolve()}"
        self._names = list(names)
        self._images = images
        self._labels = labels
        self._digests: dict[Path, str] = {}
        self._palettes: PaletteCheck | None = None
        self._turning = Turning(config.turned, self._sizes, "dataset.turned")

    @property
    def names(self) -> list[str]:
        return self._names

    @property
    def source(self) -> str:
        """The kind of data set and its folder's absolute path."""
        return self._source

    def __getitem__(self, index: int) -> Sample:
        name = self._names[index]
        image_path, label_path = self._images[name], self._labels[name]
        image, orientation = image_files.read_as_stored(image_path, self._channels, self._bits, self._range)
        values = self._read_label(label_path)
        image = self._turning.fitted(image, orientation, values.shape)
        if values.shape != image.shape[:2]:
            raise DataError(
                f"label '{label_path}' is {_size(values)} pixels but image '{image_path}' is {_size(image)}: "
                "a label must have its image's size"
            )
        return Sample(image, self._values.to_classes(values, label_path), name)

    def label(self, index: int) -> np.ndarray:
        """Return the label of sample ``index``, H x W uint8, without its image, which takes three times as long.

        Raises:
            DataError: If its file is bad. Whether it has its image's size is not checked.
        """
        path = self._labels[self._names[index]]
        return self._values.to_classes(self._read_label(path), path)

    def fingerprint(self) -> str:
        """Return a digest of the names and contents of the split's files and of what their labels mean.

        The files are read but not decoded, which takes 6 to 20 % of the time of `check`.

        Raises:
            DataError: For the first file, in order, that cannot be read.
        """
        return digest_of([self._values.meaning, list(map_ahead(self._stored, self._names, workers=2, ahead=4))])

    def stamp(self) -> str | None:
        """Return a digest of the size and times of every file (see `fcnlab.data.file_times`).

        Returns:
            None for a class of another package: how that reads may change without a sign of it here.
        """
        if not type(self).__module__.startswith("fcnlab.data."):
            return None
        files = digest_of_files(self._files())
        return files and digest_of([type(self).__qualname__, self._names, self._values.meaning, files])

    def image_path(self, name: str) -> Path | Page:
        """Return the file of a sample's image."""
        return self._images[name]

    def label_path(self, name: str) -> Path | Page:
        """Return the file of a sample's label."""
        return self._labels[name]

    def _files(self) -> Iterator[Path]:
        """Yield every file that the samples are read from."""
        for name in self._names:
            yield self._images[name]
            yield self._labels[name]

    def _stored(self, name: str) -> list[str]:
        """Return the file names of a sample's image and label, each followed by the digest of its content."""
        image, label = self._images[name], self._labels[name]
        if isinstance(image, Page) or isinstance(label, Page):
            return [name, self._digest_of_file(image), self._digest_of_file(label)]
        content = read_file(image, "image")
        turned = self._turning.declared is not False and orientation_of(content) != 1
        return [
            f"{name}{image.suffix}",  # The path's own name may hold the same letters in another Unicode form.
            digest(content),
            f"{name}{label.suffix}",
            digest(read_file(label, "label")),
            *(["turned"] if turned else []),
        ]

    def _digest_of_file(self, page: Path | Page) -> str:
        """Return the digest of a file, which is read once for all of its pages."""
        path = page.path if isinstance(page, Page) else page
        if path not in self._digests:
            self._digests[path] = digest(read_file(path, "image"))
        return f"{self._digests[path]} {page.number if isinstance(page, Page) else 0}"

    def _sizes(self) -> Evidence:
        """Return what the sizes of all labels, also those of the other split, say of images that are to be turned."""
        found = Evidence()
        for name, image in self._images.items():
            stated = stated_size(image) if isinstance(image, Path) else None
            if stated is not None and stated[1] != 1:
                found.add(str(image), *stated, self._read_label(self._labels[name]).shape)
        return found

    def _read_label(self, path: Path) -> np.ndarray:
        """Return a label's raw values, H x W."""
        label = self._read_raw(path)
        if self._palettes is not None:
            self._palettes.require_one_meaning(label)
        return label.values

    def _read_raw(self, path: Path | Page) -> RawLabel:
        white = 255 if 255 in self._values.values else 1
        return read_raw_label(path, white=white, upright=self._turning.declared is not False)

    def _compare_palettes(self) -> None:
        """Let labels be refused from now on whose palettes give an index two colours."""
        self._palettes = PaletteCheck(self._raw_labels, self._raw_labels_elsewhere)

    def _raw_labels(self) -> Iterator[tuple[RawLabel, Path | Page]]:
        """Yield every label, also those of the other split."""
        for path in self._labels.values():
            yield self._read_raw(path), path

    def _raw_labels_elsewhere(self) -> Iterator[RawLabel]:
        """Yield every label that is not of this split; one that cannot be read is what the other split says."""
        here = set(self._names)
        for name in self._labels:
            if name in here:
                continue
            try:
                label = self._read_raw(self._labels[name])
            except DataError:
                continue
            yield label


class LabelValues:
    """The raw values of labels and the classes that they stand for.

    Without ``label_values``, a label's pixels are class indices; with it, the position of a value in the list is its
    class. ``ignore_index`` stands for itself unless the list has it.

    Args:
        config: The classes.
        label_values: The raw value of each class; if empty, labels hold class indices.

    Attributes:
        values: The raw value of each class.
        meaning: Everything that decides what a label means, for a fingerprint.

    Raises:
        ConfigError: If ``label_values`` has a value twice or more values than there are classes.
    """

    def __init__(self, config: DatasetConfig, label_values: Sequence[int] = ()) -> None:
        self.values = values = list(label_values) or list(range(config.num_classes))
        if len(set(values)) < len(values):
            raise ConfigError(f"dataset.label_values={values} has a value twice: each class needs its own")
        if len(values) > config.num_classes:
            raise ConfigError(
                f"dataset.label_values has {len(values)} values but dataset.num_classes is {config.num_classes}: "
                "a value for each class is enough"
            )
        self.meaning = [values, config.num_classes, config.ignore_index, config.class_names]
        self._num_classes = config.num_classes
        self._classes = np.zeros(256, np.uint8)  # by raw value
        self._known = np.zeros(256, bool)
        for raw, index in [(config.ignore_index, config.ignore_index), *zip(values, range(len(values)), strict=True)]:
            self._classes[raw], self._known[raw] = index, True

    def to_classes(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Turn the raw values of a label, H x W, into class indices, uint8.

        Raises:
            DataError: If a value stands for no class, naming ``path``.
        """
        if values.dtype == np.uint8:
            known = cv2.LUT(values, self._known.view(np.uint8)).view(bool)  # This takes half the time of indexing.
        else:  # Values may lie beyond the table.
            known = np.isin(values, np.flatnonzero(self._known))
        if not known.all():
            unknown = first_few(np.unique(values[~known]).tolist())
            way_out = "set dataset.label_values to the raw value of each class, or raise dataset.num_classes"
            if path.suffix.lower() in JPEG_EXTENSIONS:
                way_out = "JPEG changes the values of pixels when it is saved: save labels as PNGs"
            raise DataError(f"label '{path}' has {unknown} outside the {self._num_classes} classes: {way_out}")
        return cv2.LUT(values, self._classes) if values.dtype == np.uint8 else self._classes[values]


def root_folder(config: DatasetConfig) -> Path:
    """Return the data set's folder.

    Raises:
        DataError: If ``dataset.root`` is not set, or is no folder.
    """
    if not config.root:
        raise DataError("dataset.root is not set: give the folder that holds images and labels, dataset.root=<folder>")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(f"dataset.root: there is no folder '{root}'")
    return root


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
