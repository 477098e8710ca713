"""Softmax cross-entropy, plain and focal, as a mean or a sum over pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from fcnlab import kernels
from fcnlab.core.errors import ConfigError
from fcnlab.losses.class_weights import weights_parameter

REDUCTIONS = ("mean", "sum")


class _PixelLoss(nn.Cell):
    """The base class of losses that are a weighted mean, or a weighted sum, over pixels."""

    def __init__(
        self, ignore_index: int, num_classes: int, class_weights: Sequence[float] | None, reduction: str
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ConfigError(f"loss.reduction={reduction}: choose one of {', '.join(REDUCTIONS)}")
        self.ignore_index = ignore_index
        self.class_weights = weights_parameter(class_weights, num_classes)
        self.is_sum = reduction == "sum"
        self.cross_entropy = kernels.cross_entropy()
        self.channel_sums = kernels.channel_sums()

    def pixels(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each pixel's cross-entropy and its weight in the mean, 0 if it is void, both N x H x W."""
        counted = labels != self.ignore_index
        classes = ops.select(counted, labels, ops.zeros_like(labels))
        weights = counted.astype(mstype.float32)
        if self.class_weights is not None:
            weights = weights * ops.gather(self.class_weights, classes, 0)
        if self.cross_entropy is not None:
            return self.cross_entropy(logits, classes), weights
        # What follows computes the same with MindSpore's operators.
        # `ops.cross_entropy` would move the classes to the last axis and back, which takes twice the time. Automatic
        # differentiation of these lines takes no longer than an explicit (softmax - one-hot) * weight.
        # The exponential of shifted logits cannot overflow; a shift changes neither the loss nor its gradient.
        shifted = logits - ops.stop_gradient(ops.amax(logits, 1, True))
        normaliser = ops.log(ops.exp(shifted).sum(1))
        chosen = ops.gather_elements(shifted, 1, classes.expand_dims(1)).squeeze(1)
        return normaliser - chosen, weights

    def reduce(self, losses: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted mean of what `pixels` has returned, or 0 if all weights are 0; or the weighted sum."""
        if self.is_sum:
            return self.total(losses * weights)
        total = self.total(weights)
        total = total + (total == 0).astype(mstype.float32)
        return self.total(losses * (weights / total))

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of values, N x H x W, as a scalar."""
        if self.channel_sums is None:
            return values.sum()
        return self.channel_sums(values.expand_dims(1)).reshape(())

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, or the sum."""
        losses, weights = self.pixels(logits, labels)
        return self.reduce(losses, weights)

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sums of the weighted losses and of the weights; see `fcnlab.losses.SummedLoss`."""
        losses, weights = self.pixels(logits, labels)
        return ops.stack((self.total(losses * weights), self.total(weights)))

    def from_sums(self, sums: np.ndarray) -> float:
        """Return the weighted mean, or 0 if all weights were 0; or the weighted sum."""
        losses, weights = sums
        return float(losses / (1.0 if self.is_sum else weights or 1.0))

    def divisor(self, sums: Tensor) -> Tensor:
        """Return what the sum of the losses is divided by; see `fcnlab.losses.AccumulatedLoss`."""
        if self.is_sum:
            return ops.ones_like(sums[1])
        return sums[1] + (sums[1] == 0).astype(mstype.float32)


class CrossEntropy(_PixelLoss):
    """The mean of the pixels' softmax cross-entropy over all pixels that are not void.

    With class weights it is the weighted mean, ``sum(w[label] * loss) / sum(w[label])``, like PyTorch's
    ``cross_entropy(weight=..., ignore_index=...)``. The step size then does not depend on the size of the images. A
    batch of void pixels alone has the loss 0 and the gradient 0, where PyTorch returns NaN. The paper sums instead
    (CVPR 2015, section 4.3: "unnormalized loss"), ``sum(w[label] * loss)``.

    Args:
        ignore_index: The label of void pixels.
        num_classes: The number of classes C.
        class_weights: A weight for each class, at least 0 and not all 0; with None all weigh the same.
        reduction: ``"mean"`` or ``"sum"`` over the pixels of all images of a batch.

    Inputs:
        - **logits** - N x C x H x W, float32.
        - **labels** - N x H x W, int32: 0 to C - 1, or ``ignore_index``. Other values are not detected.

    Outputs:
        A scalar, float32.

    Raises:
        ConfigError: If the class weights do not fit, or the reduction is another one.
    """

    def __init__(
        self,
        ignore_index: int,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(ignore_index, num_classes, class_weights, reduction)


class Focal(_PixelLoss):
    """The mean of the focal loss (Lin et al., ICCV 2017, equation 5) of a softmax over all pixels that are not void.

    The loss of a pixel is ``-(1 - p) ** gamma * log(p)``, where p is the probability of the labelled class, so that a
    pixel that is right already counts little. With class weights, the paper's alpha, it is the weighted mean as in
    `CrossEntropy`. With gamma = 0 it is cross-entropy.

    Args:
        ignore_index: The label of void pixels.
        num_classes: The number of classes C.
        class_weights: A weight for each class, at least 0 and not all 0; with None all weigh the same.
        gamma: The power, at least 0; the larger, the less easy pixels count. The paper's is 2.
        reduction: ``"mean"`` or ``"sum"`` over the pixels of all images of a batch.

    Inputs and outputs are those of `CrossEntropy`.

    Raises:
        ConfigError: If the class weights do not fit, or the reduction is another one.
    """

    def __init__(
        self,
        ignore_index: int,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        gamma: float = 2.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(ignore_index, num_classes, class_weights, reduction)
        self.gamma = gamma

    def pixels(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each pixel's focal loss and its weight in the mean, both N x H x W."""
        losses, weights = super().pixels(logits, labels)
        # 1 - exp(-x) would have no digits left where x is small; at 0 the power has no finite gradient.
        wrong = ops.maximum(-ops.expm1(-losses), 1e-12)
        return wrong**self.gamma * losses, weights
