"""Losses of many images from sums over each of them, so that they can be computed one image, or batch, at a time."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from mindspore import Tensor


@runtime_checkable
class SummedLoss(Protocol):
    """A loss whose value follows from sums over pixels.

    The loss of a batch is in general not the mean of its images' losses: class weights make some images count more,
    and the Dice loss is a quotient of sums. With these two methods, an evaluation adds up the sums of all images and
    reports their loss as one batch, whatever their sizes. For any batch,
    ``loss.from_sums(loss.sums(logits, labels).asnumpy())`` equals ``loss(logits, labels)`` up to rounding, and the sums
    of a batch are those of its images, added up.
    """

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sums of a batch; this is compiled with the network, like ``construct``.

        Args:
            logits: N x C x H x W, float32.
            labels: N x H x W, int32: 0 to C - 1, or void.

        Returns:
            K numbers, float32, where K does not depend on the batch.
        """
        ...

    def from_sums(self, sums: np.ndarray) -> float:
        """Return the loss of all images whose sums were added up.

        Args:
            sums: The total of the images' sums, K numbers, float64.
        """
        ...


@runtime_checkable
class AccumulatedLoss(SummedLoss, Protocol):
    """A loss whose gradient over several batches follows from a gradient for each of them, added up.

    It has two sums. The first alone depends on the logits, and the loss is that sum, divided by a number that follows
    from the second: ``loss.from_sums(sums) == sums[0] / loss.divisor(sums)``. A weighted mean over pixels is such a
    loss. The Dice loss is not, since the divisors of its quotients depend on the logits, too.
    """

    def divisor(self, sums: Tensor) -> Tensor:
        """Return the number, not 0, that the first sum is divided by; this is compiled with the network.

        Args:
            sums: The total of the batches' sums, 2 numbers, float32.

        Returns:
            A scalar, float32; 1 if the sums are 0.
        """
        ...
