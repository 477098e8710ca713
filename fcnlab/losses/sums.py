"""The loss of many images from sums over each: what lets an evaluation go image by image."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from mindspore import Tensor


@runtime_checkable
class SummedLoss(Protocol):
    """A loss whose value follows from sums over pixels.

    The loss of a batch is in general not the mean of its images' losses: class weights make some images count more,
    and the Dice loss is a quotient of sums. A loss with these two methods says what to add up over the images, and an
    evaluation then reports the loss of all of them as one batch, whatever their sizes. For any batch,
    ``loss.from_sums(loss.sums(logits, labels).asnumpy())`` is ``loss(logits, labels)`` up to rounding, and the sums of
    a batch are those of its images added up.
    """

    def sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sums of a batch, compiled with the network like ``construct``.

        Args:
            logits: N x C x H x W, float32.
            labels: N x H x W, int32: 0 to C - 1, or void.

        Returns:
            K numbers, float32; K does not depend on the batch.
        """
        ...

    def from_sums(self, sums: np.ndarray) -> float:
        """The loss of all the images that sums were added up over.

        Args:
            sums: K numbers, float64.
        """
        ...
