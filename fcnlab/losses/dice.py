"""The soft Dice loss, alone or combined with cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from fcnlab.losses.class_weights import weights_parameter
from fcnlab.losses.cross_entropy import CrossEntropy, Focal


class Dice(nn.Cell):
    """The mean over classes of one minus the soft Dice coefficient (Milletari et al., 3DV 2016, section 3).

    The loss of a class is ``1 - 2 sum(p * g) / (sum(p ** 2) + sum(g))``, with its softmax probability p and its label g
    over all pixels of the batch that are not void, so that a class counts as much as any other, however few pixels it
    has. A class that is not among the batch's labels is left out, since its coefficient is 0 whatever is predicted. A
    batch of void pixels alone has the loss 0 and the gradient 0.

    Args:
        ignore_index: The label of void pixels.
        num_classes: The number of classes C.
        class_weights: A weight for each class, at least 0 and not all 0; with None all weigh the same.

    Inputs and outputs are those of `fcnlab.losses.CrossEntropy`.

    Raises:
        ConfigError: If the class weights do not fit.
    """

    def __init__(self, ignore_index: int, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.class_weights = weights_parameter(class_weights, num_classes)
        self.classes = Tensor(list(range(num_classes)), mstype.int32).reshape(1, num_classes, 1, 1)

    def classwise(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each class's overlap sum(p * g), squares sum(p ** 2) and labelled pixels sum(g), each of length C."""
        counted = (labels != self.ignore_index).astype(mstype.float32).expand_dims(1)
        labelled = (labels.expand_dims(1) == self.classes).astype(mstype.float32) * counted
        exponentials = ops.exp(logits - ops.stop_gradient(ops.amax(logits, 1, True)))
        probabilities = exponentials / exponentials.sum(1, keepdims=True) * counted
        pixels = labelled.sum((0, 2, 3))
        overlap = (probabilities * labelled).sum((0, 2, 3))
        squares = (probabilities * probabilities).sum((0, 2, 3))
        return overlap, squares, pixels

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the classes that occur."""
        overlap, squares, pixels = self.classwise(logits, labels)
        present = (pixels > 0).astype(mstype.float32)
        coefficients = 2 * overlap / (squares + pixels + (1 - present))
        weights = present
        if self.class_weights is not None:
            weights = weights * self.class_weights
        total = weights.sum()
        total = total + (total == 0).astype(mstype.float32)
        return ((1 - coefficients) * (weights / total)).sum()

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the results of `classwise`, concatenated; see `fcnlab.losses.SummedLoss`."""
        return ops.concat(self.classwise(logits, labels))

    def from_sums(self, sums: np.ndarray) -> float:
        """Return the mean over the classes that occurred in any image."""
        overlap, squares, pixels = np.split(sums, 3)
        present = pixels > 0
        coefficients = 2 * overlap / np.where(present, squares + pixels, 1)
        weights = present.astype(np.float64)
        if self.class_weights is not None:
            weights = weights * self.class_weights.asnumpy()
        return float(((1 - coefficients) * weights).sum() / (weights.sum() or 1.0))


class Combined(nn.Cell):
    """The sum of ``1 - dice`` times the cross-entropy, or the focal loss, and ``dice`` times the Dice loss.

    Args:
        ignore_index: The label of void pixels.
        num_classes: The number of classes C.
        class_weights: A weight for each class, for both losses; with None all weigh the same.
        gamma: The power of the focal loss; 0 is cross-entropy.
        dice: The share of the Dice loss, from 0 to 1.

    Inputs and outputs are those of `fcnlab.losses.CrossEntropy`.

    Raises:
        ConfigError: If the class weights do not fit.
    """

    def __init__(
        self,
        ignore_index: int,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        gamma: float = 0.0,
        dice: float = 0.5,
    ) -> None:
        super().__init__()
        if gamma > 0:
            self.pixels = Focal(ignore_index, num_classes, class_weights, gamma)
        else:
            self.pixels = CrossEntropy(ignore_index, num_classes, class_weights)
        self.regions = Dice(ignore_index, num_classes, class_weights)
        self.dice = dice

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum."""
        return (1 - self.dice) * self.pixels(logits, labels) + self.dice * self.regions(logits, labels)

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sums of both, concatenated; see `fcnlab.losses.SummedLoss`."""
        return ops.concat((self.pixels.sums(logits, labels), self.regions.sums(logits, labels)))

    def from_sums(self, sums: np.ndarray) -> float:
        """Return the weighted sum of both."""
        pixels, regions = np.split(sums, [2])
        return float((1 - self.dice) * self.pixels.from_sums(pixels) + self.dice * self.regions.from_sums(regions))
