"""Evaluation on whole images: the paper's four metrics and the IoU of each class."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from fcnlab.core.workers import ALONE, Message, Workers
from fcnlab.losses import SummedLoss
from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.metrics.image_counts import ImageCounts
from fcnlab.metrics.names import IOU, SUMMARY, higher_is_better
from fcnlab.training.ranking import RankedImage, Ranking, reduced

if TYPE_CHECKING:
    from fcnlab.data.dataset import Sample
    from fcnlab.data.loader import Batch, EvalLoader

log = logging.getLogger(__name__)

LARGEST_COUNTS = 2**28
"""The largest size in bytes of the confusion matrices of all images together; those of more images, or of hundreds
of classes, are only added up."""

Compiler = Callable[..., object]
"""A function of a cell and example inputs that compiles the cell for these inputs, or loads its compiled graph."""


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        loss: The loss of all images taken as one batch; see `Evaluator`.
        confusion: The confusion matrix of all images together.
        class_names: The names of the classes, in the order of the matrix.
        samples: The first few samples, each with its H x W predicted class indices.
        images: The confusion matrix of each image; None for an evaluation that was read from a state, and where they
            would take too much memory.
        stage: What the names of the metrics begin with: ``val``, or ``test`` for the test images.
        ranked: The worst, the median and the best image; none if no samples are kept.
    """

    loss: float
    confusion: ConfusionMatrix
    class_names: Sequence[str]
    samples: Sequence[tuple[Sample, np.ndarray]]
    images: ImageCounts | None = None
    stage: str = "val"
    ranked: Sequence[RankedImage] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics by name; a class that occurs nowhere has none."""
        measured = {"loss": self.loss, **self.confusion.summary()}
        ious = zip(self.class_names, self.confusion.iou, strict=True)
        measured |= {f"iou/{name}": float(iou) for name, iou in ious if not math.isnan(iou)}
        return {f"{self.stage}/{key}": value for key, value in measured.items()}


def metric_names(class_names: Sequence[str]) -> list[str]:
    """Return the names of all metrics that an evaluation may have, such as ``val/mean_iou``."""
    return ["val/loss", *SUMMARY, *(f"{IOU}{name}" for name in class_names)]


def is_better(evaluation: Evaluation, best: Evaluation | None, monitor: str) -> bool:
    """Return whether an evaluation is better than the best so far.

    An evaluation whose loss is not finite is never better. Neither is one without the monitored metric, as when a class
    occurs nowhere and has no IoU, unless it is the first.

    Args:
        evaluation: The new evaluation.
        best: The best evaluation so far; None if there is none.
        monitor: The name of the metric that decides.
    """
    if not math.isfinite(evaluation.loss):
        return False
    if best is None:
        return True
    value, best_value = (one.metrics.get(monitor, math.nan) for one in (evaluation, best))
    if math.isnan(best_value):
        return not math.isnan(value)
    return value > best_value if higher_is_better(monitor) else value < best_value


class _EvaluationStep(nn.Cell):
    def __init__(self, network: nn.Cell, loss: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.is_summed = isinstance(loss, SummedLoss)

    def construct(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        if self.is_summed:
            return self.loss.sums(logits, labels), logits.argmax(axis=1)
        return self.loss(logits, labels), logits.argmax(axis=1)


class _TotalLoss:
    """The loss of many images, added up in float64 from the losses or sums that an `_EvaluationStep` returns."""

    def __init__(self, loss: nn.Cell) -> None:
        self._loss = loss
        self._is_summed = isinstance(loss, SummedLoss)
        self._total: np.ndarray | float = 0.0
        self._pixels = 0

    def add(self, loss: np.ndarray, pixels: int) -> None:
        """Add the loss or the sums of an image with this number of pixels that are not void."""
        if pixels > 0:
            self._total = self._total + loss.astype(np.float64) * (1 if self._is_summed else pixels)
            self._pixels += pixels

    @property
    def value(self) -> float:
        """The loss of the images so far; 0 if all their pixels were void."""
        if self._pixels == 0:
            return 0.0
        return self._loss.from_sums(self._total) if self._is_summed else float(self._total / self._pixels)


class _Image(NamedTuple):
    """What has been found of one image.

    Attributes:
        index: Its index in the data set.
        name: Its name.
        loss: The loss, or the sums that it follows from, float32.
        pixels: The number of its pixels that are not void.
        alone: Its confusion matrix.
        prediction: The predicted class indices, H x W, or every so many of them if a worker told of them.
    """

    index: int
    name: str
    loss: np.ndarray
    pixels: int
    alone: ConfusionMatrix
    prediction: np.ndarray

    def told(self, keep: int) -> tuple[Any, ...]:
        """Return what to tell the other workers, as `fcnlab.core.workers.Workers.exchange` takes it.

        Args:
            keep: The number of images whose whole prediction is kept; of others, a small one is.
        """
        prediction = self.prediction.astype(np.uint8) if keep else np.zeros((0, 0), np.uint8)
        if keep and self.index >= keep:
            prediction = reduced(prediction)
        content = [self.index, self.name, self.pixels]
        return content, np.asarray(self.loss), self.alone.counts, prediction

    @classmethod
    def of(cls, message: Message, num_classes: int, ignore_index: int) -> _Image:
        """Return the image that a worker has told of."""
        (index, name, pixels), (loss, counts, prediction) = message
        alone = ConfusionMatrix(num_classes, ignore_index)
        alone.counts += counts
        return cls(index, name, loss, pixels, alone, prediction)


class Evaluator:
    """Runs a network over a data set, one whole image at a time.

    The loss is computed as if all images were one batch, which is what training minimises: with class weights an image
    counts by the weights of its pixels, and the Dice loss compares the overlaps of all images. This needs a
    `fcnlab.losses.SummedLoss`, as all losses of this package are. With any other loss, the result is the mean of the
    images' losses, weighted by the number of their pixels that are not void.

    Args:
        network: The network in training; it is put back into training mode afterwards.
        loss: The loss that training minimises.
        loader: The validation images.
        num_classes: The number of classes, without void.
        ignore_index: The label of void pixels.
        class_names: The name of each class.
        keep: The number of samples to keep with their predictions, to be drawn. Unless it is 0, the worst, the median
            and the best image are found, too.
        channels: The number of the images' channels.
        compiler: Compiles the evaluation before the first image; None where nothing is compiled.
        workers: The workers that share the images. Each has a loader of the images ``rank, rank + count, ...``.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        loader: EvalLoader,
        *,
        num_classes: int,
        ignore_index: int,
        class_names: Sequence[str],
        keep: int = 0,
        channels: int = 3,
        compiler: Compiler | None = None,
        workers: Workers = ALONE,
    ) -> None:
        self.workers = workers
        self.step = _EvaluationStep(network, loss)
        # Images may be of many sizes; a dynamic height and width compile once for all of them, and run as fast.
        self.step.set_inputs(
            Tensor(shape=[None, channels, None, None], dtype=ms.float32),
            Tensor(shape=[None, None, None], dtype=ms.int32),
        )
        self.loader = loader
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.class_names = list(class_names)
        self.keep = keep
        self._compiler = compiler
        if not self._keeps_counts(loader):
            log.info(
                "the confusion matrices of %d images with %d classes each would take too much memory: comparisons will "
                "not tell how much depends on the images",
                *(len(loader), num_classes),
            )

    def _keeps_counts(self, loader: EvalLoader) -> bool:
        return len(loader) * self.num_classes**2 * np.dtype(np.int64).itemsize <= LARGEST_COUNTS

    def __call__(self) -> Evaluation:
        """Evaluate the validation images once."""
        return self.over(self.loader, keep=self.keep)

    def over(self, loader: EvalLoader, stage: str = "val", keep: int = 0) -> Evaluation:
        """Evaluate any images once, with the same compiled graph.

        Args:
            loader: The images.
            stage: What the names of the metrics begin with.
            keep: The number of samples to keep with their predictions.
        """
        confusion = ConfusionMatrix(self.num_classes, self.ignore_index)
        loss = _TotalLoss(self.step.loss)
        samples, names, ranking = [], [], Ranking()
        size = (len(loader), self.num_classes, self.num_classes)
        counts = np.zeros(size, np.int64) if self._keeps_counts(loader) else None
        self.step.set_train(False)
        try:
            for image in self._measured(loader, keep):
                loss.add(image.loss, image.pixels)
                confusion.merge(image.alone)
                names.append(image.name)
                if counts is not None:
                    counts[image.index] = image.alone.counts
                if keep:
                    ranking.add(image.index, image.alone.mean_iou, image.prediction)
                if image.index < keep:
                    samples.append((loader.raw(image.index), image.prediction))
        finally:
            self.step.set_train(True)
        images = None if counts is None else ImageCounts(tuple(names), tuple(loader.groups), counts)
        ranked = [RankedImage(role, iou, loader.raw(index), shown) for role, iou, index, shown in ranking]
        return Evaluation(loss.value, confusion, self.class_names, samples, images, stage, ranked)

    def _measured(self, loader: EvalLoader, keep: int) -> Iterator[_Image]:
        """Yield every image in order; each worker computes its own, and tells the others of them one by one."""
        workers = self.workers
        with closing(iter(loader)) as batches:
            for start in range(0, len(loader), workers.count):
                own = [self._measure(start + workers.rank, next(batches))] if start + workers.rank < len(loader) else []
                if workers.count == 1:
                    yield from own
                    continue
                messages = workers.exchange(*(own[0].told(keep) if own else ()))
                workers.stop_together()
                for message in messages:
                    if message.content is not None:
                        yield _Image.of(message, self.num_classes, self.ignore_index)

    def _measure(self, index: int, batch: Batch) -> _Image:
        images, labels = Tensor(batch.images), Tensor(batch.labels)
        if self._compiler is not None:
            self._compiler(self.step, images, labels)
            self._compiler = None
        loss, prediction = self.step(images, labels)
        prediction = prediction.asnumpy()
        alone = ConfusionMatrix(self.num_classes, self.ignore_index)
        alone.update(batch.labels, prediction)
        pixels = int(np.count_nonzero(batch.labels != self.ignore_index))
        return _Image(index, batch.names[0], loss.asnumpy(), pixels, alone, prediction[0])
