"""Losses of many images from sums over each of them, so that an evaluation can take one image at a time."""

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
