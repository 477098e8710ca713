"""Evaluation on whole images: the paper's four metrics and the IoU of each class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from fcnlab.losses import SummedLoss
from fcnlab.metrics.confusion import ConfusionMatrix

if TYPE_CHECKING:
    from fcnlab.data.dataset import Sample
    from fcnlab.data.loader import EvalLoader

Compiler = Callable[..., object]
"""Called with a cell and example inputs: compiles it for these, or loads its graph, so that the next call need not."""

SUMMARY = ("loss", "pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        loss: Of all images taken as one batch; see `Evaluator`.
        confusion: Of all images together.
        class_names: In the order of the matrix.
        samples: The first few samples, each with its H x W predicted class indices.
    """

    loss: float
    confusion: ConfusionMatrix
    class_names: Sequence[str]
    samples: Sequence[tuple[Sample, np.ndarray]]

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric under its name in the tracking store; a class that occurs nowhere has none."""
        summary = {"val/loss": self.loss, **{f"val/{key}": value for key, value in self.confusion.summary().items()}}
        per_class = {
            f"val/iou/{name}": float(iou) for name, iou in zip(self.class_names, self.confusion.iou, strict=True)
        }
        return summary | {key: value for key, value in per_class.items() if not math.isnan(value)}


def metric_names(class_names: Sequence[str]) -> list[str]:
    """The names under which an evaluation's metrics are known, such as ``val/mean_iou``."""
    return [f"val/{name}" for name in SUMMARY] + [f"val/iou/{name}" for name in class_names]


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
    """Adds up over images, in float64, what an `_EvaluationStep` gives beside its predictions."""

    def __init__(self, loss: nn.Cell) -> None:
        self._loss = loss
        self._is_summed = isinstance(loss, SummedLoss)
        self._total: np.ndarray | float = 0.0
        self._pixels = 0

    def add(self, found: Tensor, counted: int) -> None:
        """Count an image with so many pixels that are not void."""
        if counted > 0:
            self._total = self._total + found.asnumpy().astype(np.float64) * (1 if self._is_summed else counted)
            self._pixels += counted

    @property
    def value(self) -> float:
        """The loss of the images so far; 0 if they had no pixel that counts."""
        if self._pixels == 0:
            return 0.0
        return self._loss.from_sums(self._total) if self._is_summed else float(self._total / self._pixels)


class Evaluator:
    """Runs a network over a data set, one whole image at a time.

    The loss is that of all images taken as one batch, which is what training minimises: with class weights an image
    counts by the weights of its pixels, and the Dice loss is that of the overlaps of all. It needs a loss that is a
    `fcnlab.losses.SummedLoss`, as this package's are. Of any other, it is the mean of the images' losses, each weighed
    by its pixels that are not void.

    Args:
        network: The network in training; it is put back into training mode afterwards.
        loss: The same as in training.
        loader: The validation images.
        num_classes: Without void.
        ignore_index: Label of void pixels.
        class_names: One for each class.
        keep: How many samples to keep with their predictions, for a tracker to draw.
        channels: Of the images.
        compiler: Called with the cell to evaluate and its first inputs, before they are computed; None: nothing is.
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
    ) -> None:
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

    def __call__(self) -> Evaluation:
        """Evaluate once."""
        confusion = ConfusionMatrix(self.num_classes, self.ignore_index)
        loss = _TotalLoss(self.step.loss)
        samples = []
        self.step.set_train(False)
        try:
            for index, batch in enumerate(self.loader):
                images, labels = Tensor(batch.images), Tensor(batch.labels)
                if self._compiler is not None:
                    self._compiler(self.step, images, labels)
                    self._compiler = None
                found, prediction = self.step(images, labels)
                prediction = prediction.asnumpy()
                loss.add(found, int(np.count_nonzero(batch.labels != self.ignore_index)))
                confusion.update(batch.labels, prediction)
                if index < self.keep:
                    samples.append((self.loader.raw(index), prediction[0]))
        finally:
            self.step.set_train(True)
        return Evaluation(loss.value, confusion, self.class_names, samples)
