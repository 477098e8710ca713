"""Batches made of samples: normalised, in channel-first order, ahead of time in background threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.channels import full_range
from fcnlab.data.dataset import Dataset, Sample, Transform
from fcnlab.data.prefetch import map_ahead


class Batch(NamedTuple):
    """Samples of one size.

    Attributes:
        images: N x C x H x W, float32, normalised; RGB unless the data set has other channels.
        labels: N x H x W, int32 class indices, with ``ignore_index`` for void.
        names: The N samples' names.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def normalise(
    image: np.ndarray, mean: Sequence[float], std: Sequence[float], out: np.ndarray | None = None
) -> np.ndarray:
    """Turn an image into what a network takes: ``(image / full range - mean) / std``, channel first.

    Args:
        image: H x W x C, uint8 or uint16.
        mean: The mean of each channel, on the scale 0 to 1.
        std: The standard deviation of each channel, on the scale 0 to 1.
        out: The array to write to; a new one if None.

    Returns:
        ``out``: C x H x W, float32.
    """
    if out is None:
        out = np.empty((image.shape[2], *image.shape[:2]), np.float32)
    largest = full_range(image)
    for plane, target, centre, spread in zip(cv2.split(image), out, mean, std, strict=True):
        np.multiply(plane, np.float32(1 / (largest * spread)), out=target, dtype=np.float32)
        target -= np.float32(centre / spread)
    return out


class TrainLoader:
    """Shuffled batches of random crops.

    The data depend on ``seed``, the epoch and a crop's position in it, and on nothing else: they are the same for any
    number of workers and from any ``start_step``, so that a resumed training sees what it would have seen.

    Args:
        dataset: The data set.
        transform: A function that makes one crop of a sample; all crops have one size.
        batch_size: The number of crops in a batch.
        crops_per_image: How often an epoch visits each sample.
        mean: The mean of each channel, on the scale 0 to 1.
        std: The standard deviation of each channel, on the scale 0 to 1.
        seed: The seed of the order and of the crops.
        num_workers: The number of background threads; each makes whole batches.
        prefetch: The number of batches that are made ahead.
        repeats: How much more often each sample is drawn than one of factor 1; if None, all are drawn equally often.
        batches_per_step: The number of batches that a step takes. Together they hold the samples, in the same order, of
            the one batch of a loader with a batch as large as all of them.
        share: The positions in each batch whose crops this loader makes, where several workers share each batch; None
            for all.

    Raises:
        DataError: If the data set is empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        *,
        batch_size: int,
        crops_per_image: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        num_workers: int,
        prefetch: int = 4,
        repeats: np.ndarray | None = None,
        batches_per_step: int = 1,
        share: range | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise DataError("the training split is empty: there is nothing to make batches of")
        self._dataset = dataset
        self._transform = transform
        self.batch_size = batch_size
        self._batches_per_step = batches_per_step
        self._share = range(batch_size) if share is None else share
        self._crops_per_image = crops_per_image
        self._mean = tuple(mean)
        self._std = tuple(std)
        self._seed = seed
        self._num_workers = num_workers
        self._prefetch = prefetch
        self._shares = None if repeats is None else repeats / repeats.sum()

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps with full batches in an epoch; at least 1, which repeats samples if need be."""
        return max(1, len(self._dataset) * self._crops_per_image // (self._batches_per_step * self.batch_size))

    def epoch(self, number: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, or this loader's share of each.

        Each sample comes ``crops_per_image`` times, or with ``repeats`` on average by its share. Crops that do not fill
        the batches of a last step are dropped, those of other samples in each epoch. Closing or dropping the iterator
        ends its threads.

        Args:
            number: The epoch, from 0.
            start_step: The number of steps to skip at the beginning; their batches are not made.

        Raises:
            DataError: At its turn, for a sample that cannot be read.
        """
        items = self._order(number)

        def make(index: int) -> Batch:
            positions = [index * self.batch_size + position for position in self._share]
            crops = (
                self._transform(self._dataset[int(items[position])], self._generator(number, position))
                for position in positions
            )
            return _collate(crops, len(positions), self._mean, self._std)

        indices = range(start_step * self._batches_per_step, self.steps_per_epoch * self._batches_per_step)
        return map_ahead(make, indices, workers=self._num_workers, ahead=self._prefetch)

    def _order(self, number: int) -> np.ndarray:
        """Return the index of the sample at each position of an epoch."""
        generator, count = self._generator(number), len(self._dataset)
        positions = self.steps_per_epoch * self._batches_per_step * self.batch_size
        if self._shares is not None:
            return generator.choice(count, positions, p=self._shares)
        return np.resize(generator.permutation(count * self._crops_per_image), positions) % count

    def _generator(self, *key: int) -> np.random.Generator:
        # A spawn key, not a longer seed: numpy pads a short seed with zeros, so that (seed, epoch) and
        # (seed, epoch, 0) would be one stream.
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))


class EvalLoader:
    """Whole images in order, one in each batch, since their sizes may differ.

    Args:
        dataset: The data set.
        mean: The mean of each channel, on the scale 0 to 1.
        std: The standard deviation of each channel, on the scale 0 to 1.
        prefetch: The number of batches that a background thread makes ahead.
        indices: The samples that this loader makes batches of, where several workers share the images; None for all.

    Attributes:
        indices: The samples that batches are made of.
        groups: The group of each image, in order. A file that states groups is read here, before anything is trained.

    Raises:
        DataError: If that file is damaged.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        prefetch: int = 2,
        indices: range | None = None,
    ) -> None:
        self._dataset = dataset
        self.indices = range(len(dataset)) if indices is None else indices
        self.groups = dataset.groups
        self._mean = tuple(mean)
        self._std = tuple(std)
        self._prefetch = prefetch

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Batch]:
        return map_ahead(self._make, self.indices, workers=1, ahead=self._prefetch)

    def raw(self, index: int) -> Sample:
        """Return sample ``index`` as it is in the data set, for pictures."""
        return self._dataset[index]

    def _make(self, index: int) -> Batch:
        return _collate(iter([self._dataset[index]]), 1, self._mean, self._std)


def _collate(samples: Iterator[Sample], count: int, mean: Sequence[float], std: Sequence[float]) -> Batch:
    """Make a batch of ``count`` samples of one size, each written straight into the batch's arrays."""
    names = []
    for position, sample in enumerate(samples):
        if position == 0:
            shape = sample.label.shape
            images = np.empty((count, sample.image.shape[2], *shape), np.float32)
            labels = np.empty((count, *shape), np.int32)
        normalise(sample.image, mean, std, out=images[position])
        labels[position] = sample.label
        names.append(sample.name)
    return Batch(images, labels, tuple(names))
