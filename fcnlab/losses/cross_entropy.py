"""Softmax cross-entropy, plain and focal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from fcnlab.losses.class_weights import weights_parameter


class _PixelLoss(nn.Cell):
    """What the losses of single pixels share."""

    def __init__(self, ignore_index: int, num_classes: int, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.class_weights = weights_parameter(class_weights, num_classes)

    def pixels(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of each pixel its cross-entropy and its weight in the mean, 0 if it is void, both N x H x W."""
        # By hand along axis 1: `ops.cross_entropy` moves the classes last and back, at twice the time. Autodiff
        # through these lines takes no longer than an explicit (softmax - one-hot) * weight.
        counted = labels != self.ignore_index
        classes = ops.select(counted, labels, ops.zeros_like(labels))
        weights = counted.astype(mstype.float32)
        if self.class_weights is not None:
            weights = weights * ops.gather(self.class_weights, classes, 0)
        # exp() of the shifted logits cannot overflow; a shift changes neither the loss nor its gradient.
        shifted = logits - ops.stop_gradient(ops.amax(logits, 1, True))
        normaliser = ops.log(ops.exp(shifted).sum(1))
        chosen = ops.gather_elements(shifted, 1, classes.expand_dims(1)).squeeze(1)
        return normaliser - chosen, weights

    def mean(self, losses: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean of what `pixels` gave; 0 where nothing has a weight."""
        total = weights.sum()
        total = total + (total == 0).astype(mstype.float32)
        return (losses * (weights / total)).sum()

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted losses and the weights, summed: see `fcnlab.losses.SummedLoss`."""
        losses, weights = self.pixels(logits, labels)
        return ops.stack(((losses * weights).sum(), weights.sum()))

    def from_sums(self, sums: np.ndarray) -> float:
        """The weighted mean; 0 where nothing had a weight."""
        losses, weights = sums
        return float(losses / (weights or 1.0))


class CrossEntropy(_PixelLoss):
    """Pixel-wise softmax cross-entropy, the mean over the pixels that are not void.

    With class weights it is the weighted mean, ``sum(w[label] * loss) / sum(w[label])``, as PyTorch's
    ``cross_entropy(weight=..., ignore_index=...)`` has it. The mean, where the paper sums (CVPR 2015, section 4.3:
    "unnormalized loss"), so that the step size does not depend on the image size. A batch in which no pixel counts
    gives 0 with gradient 0, where PyTorch gives NaN.

    Args:
        ignore_index: The label of void pixels.
        num_classes: Classes C.
        class_weights: One weight a class, at least 0 and not all 0; None weighs all the same.

    Inputs:
        - **logits** - N x C x H x W, float32.
        - **labels** - N x H x W, int32: 0 to C - 1, or ``ignore_index``. Other values are not detected here.

    Outputs:
        A scalar, float32.

    Raises:
        ConfigError: If the class weights do not fit.
    """

    def __init__(self, ignore_index: int, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(ignore_index, num_classes, class_weights)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss."""
        losses, weights = self.pixels(logits, labels)
        return self.mean(losses, weights)


class Focal(_PixelLoss):
    """Focal loss (Lin et al., ICCV 2017, equation 5) over a softmax, the mean over the pixels that are not void.

    ``-(1 - p) ** gamma * log(p)`` with p the probability of the labelled class: a pixel that is right already counts
    little. With class weights, their alpha, it is the weighted mean as in `CrossEntropy`, which it is for gamma = 0.

    Args:
        ignore_index: The label of void pixels.
        num_classes: Classes C.
        class_weights: One weight a class, at least 0 and not all 0; None weighs all the same.
        gamma: How little the easy pixels count, at least 0; the paper's is 2.

    Inputs and outputs are those of `CrossEntropy`.

    Raises:
        ConfigError: If the class weights do not fit.
    """

    def __init__(
        self,
        ignore_index: int,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        gamma: float = 2.0,
    ) -> None:
        super().__init__(ignore_index, num_classes, class_weights)
        self.gamma = gamma

    def pixels(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of each pixel its focal loss and its weight in the mean, both N x H x W."""
        losses, weights = super().pixels(logits, labels)
        # Not 1 - exp(-x), which has no digits left where x is small; there the power has no finite gradient, either.
        wrong = ops.maximum(-ops.expm1(-losses), 1e-12)
        return wrong**self.gamma * losses, weights

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss."""
        losses, weights = self.pixels(logits, labels)
        return self.mean(losses, weights)
