"""The measurement of a trained network on labelled images."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fcnlab.data.dataset import Dataset, Sample
from fcnlab.data.prefetch import map_ahead
from fcnlab.inference.trained import TrainedNetwork
from fcnlab.metrics.boundary import BoundaryF1
from fcnlab.metrics.calibration import Calibration, found_by_review
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.metrics.partition import PartitionScores


class ImageResult(NamedTuple):
    """The scores of one image.

    Attributes:
        name: The name of the sample.
        mean_iou: The mean IoU of the classes that occur in its label or prediction; NaN if all its pixels are void.
        pixel_accuracy: The pixel accuracy; NaN if all its pixels are void.
        group: The group of the sample, which is its name if it belongs with no other.
        doubt: The mean of one minus the probability of the predicted class, over the pixels that are not void; NaN if
            all of them are void.
        counts: The numbers of pixels, C x C int64; rows are labels, columns predictions. None if they are not known.
    """

    name: str
    mean_iou: float
    pixel_accuracy: float
    group: str = ""
    doubt: float = math.nan
    counts: np.ndarray | None = None


class WorstImage(NamedTuple):
    """One of the images of the lowest mean IoU, with its prediction (H x W uint8)."""

    result: ImageResult
    sample: Sample
    prediction: np.ndarray


@dataclass
class Measurement:
    """The result of measuring a network.

    Attributes:
        class_names: The names of the classes, in the order of every array.
        confusion: The confusion matrix of all images together.
        boundary: The boundary F1 scores of the images.
        partition: The ISBI 2012 challenge's scores, if the data set has membranes.
        calibration: How often the predicted class is right, by the probability that the network gives it.
        images: The scores of each image, in order.
    """

    class_names: Sequence[str]
    confusion: ConfusionMatrix
    boundary: BoundaryF1
    partition: PartitionScores | None
    images: list[ImageResult] = field(default_factory=list)
    calibration: Calibration = field(default_factory=Calibration)
    _worst: list[tuple[float, int, WorstImage]] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics by name, without a prefix; a class that occurs nowhere has none."""
        values = {**self.confusion.summary(), "boundary_f1": self.boundary.mean}
        per_class = {"iou": self.confusion.iou, "dice": self.confusion.dice, "boundary_f1": self.boundary.scores}
        for metric, scores in per_class.items():
            values |= {f"{metric}/{name}": float(score) for name, score in zip(self.class_names, scores, strict=True)}
        if self.partition is not None:
            best, half = self.partition.best, self.partition.scores[self.partition.thresholds.index(0.5)]
            values |= {"rand_score": best.rand, "information_score": best.information}
            values |= {"rand_score_at_half": half.rand, "information_score_at_half": half.information}
        values |= {"expected_calibration_error": self.calibration.error, "errors_found_by_review": self.review}
        return {name: value for name, value in values.items() if not math.isnan(value)}

    @property
    def review(self) -> float:
        """The share of all errors that lies in the fifth of the images of the largest doubt; NaN without an error."""
        known = [image for image in self.images if image.counts is not None and not math.isnan(image.doubt)]
        errors = [int(image.counts.sum() - np.trace(image.counts)) for image in known]
        return found_by_review([image.doubt for image in known], errors)

    @property
    def worst(self) -> list[WorstImage]:
        """The images of the lowest mean IoU, the lowest first."""
        return [image for *_, image in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1]))]


def measure(
    network: TrainedNetwork,
    dataset: Dataset,
    measurement: Measurement,
    *,
    ignore_index: int,
    membrane: int | None = None,
    worst: int = 0,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    tile: int,
) -> Iterator[ImageResult]:
    """Measure a network image by image.

    Args:
        network: The network to measure.
        dataset: The labelled images.
        measurement: The measurement to which every image is added.
        ignore_index: The label of void pixels.
        membrane: The class that separates cells, if there is one.
        worst: The number of the worst images to keep.
        flip: See `TrainedNetwork.predict`.
        scales: See `TrainedNetwork.predict`.
        tile: See `TrainedNetwork.predict`.

    Yields:
        The scores of each image.

    Raises:
        DataError: If a sample cannot be read; it is raised in the place of that sample's scores.
    """
    views = {"flip": flip, "scales": tuple(scales), "tile": tile}
    groups = dataset.groups
    for index, sample in enumerate(map_ahead(dataset.__getitem__, range(len(dataset)), workers=1, ahead=2)):
        if measurement.partition is None:
            prediction, confidence = network.predict_with_confidence(sample.image, **views)
        else:
            probabilities = network.probabilities(sample.image, **views)
            prediction, confidence = probabilities.argmax(axis=0).astype(np.uint8), probabilities.max(axis=0)
            cell = (sample.label != membrane) & (sample.label != ignore_index)
            measurement.partition.update(cell, 1 - probabilities[membrane])
        alone = ConfusionMatrix(network.num_classes, ignore_index)
        alone.update(sample.label, prediction)
        measurement.confusion.merge(alone)
        measurement.boundary.update(sample.label, prediction)
        measurement.calibration.update(sample.label, prediction, confidence, ignore_index)
        sure = confidence[sample.label != ignore_index]
        doubt = 1 - float(sure.mean(dtype=np.float64)) if sure.size else math.nan
        result = ImageResult(sample.name, alone.mean_iou, alone.pixel_accuracy, groups[index], doubt, alone.counts)
        measurement.images.append(result)
        if worst and not math.isnan(result.mean_iou):
            entry = (-result.mean_iou, -index, WorstImage(result, sample, prediction))
            (heapq.heappush if len(measurement._worst) < worst else heapq.heappushpop)(measurement._worst, entry)
        yield result
