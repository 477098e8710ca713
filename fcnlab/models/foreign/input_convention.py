"""How a network takes its images: what the first convolution has to make up for when another one prepares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class InputConvention:
    """The pixels that a file's weights expect: (scale * v - mean) / std for v from 0 to 1, in an order of channels.

    Attributes:
        mean: What is subtracted, one number for each channel, in the file's order.
        std: What is divided by, likewise.
        scale: The largest value of a pixel: 1 or 255.
        order: ``"RGB"`` or ``"BGR"``.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 1.0
    order: str = "RGB"

    @property
    def exact_mean(self) -> list[float]:
        """The mean of red, green and blue from 0 to 1 with which a converted network is exact at the borders, too.

        The colour of the padding is the mean.
        """
        mean = self._as_rgb(self.mean).tolist()
        # A millionth is far below what a picture's 8 bits tell apart, and such a mean can be read and typed.
        return mean if self.scale == 1 else [round(value / self.scale, 6) for value in mean]

    def convert(
        self, weight: np.ndarray, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Convert a first convolution for images that are RGB, from 0 to 1, minus ``mean`` and divided by ``std``.

        Args:
            weight: The kernel of the file, O x 3 x height x width.
            mean: The mean of red, green and blue.
            std: The standard deviation of red, green and blue.

        Returns:
            The kernel and what the bias grows by, with which the convolution gives the same features of the same
            picture, but for those that the padding touches if ``mean`` is not `exact_mean`. None if nothing changes.
        """
        factor, offset = self._change(mean, std)
        if self.order == "RGB" and (factor == 1).all() and (offset == 0).all():
            return None
        kernel = weight if self.order == "RGB" else weight[:, ::-1]
        grows = np.einsum("ocij,c->o", kernel, offset)
        return (kernel * factor[:, None, None]).astype(np.float32), grows.astype(np.float32)

    def convert_back(
        self, weight: np.ndarray, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Convert a first convolution for images of this convention, as `convert` does the other way round.

        Args:
            weight: The kernel for images that are RGB, from 0 to 1, minus ``mean`` and divided by ``std``.
            mean: The mean of red, green and blue.
            std: The standard deviation of red, green and blue.

        Returns:
            The kernel, O x 3 x height x width, and what the bias grows by, both float32.
        """
        factor, offset = self._change(mean, std)
        kernel = weight / factor[:, None, None]
        grows = -np.einsum("ocij,c->o", kernel, offset)
        return (kernel if self.order == "RGB" else kernel[:, ::-1]).astype(np.float32), grows.astype(np.float32)

    def _change(self, mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor and the offset that make this convention's red, green and blue of normalised ones."""
        file_mean, file_std = self._as_rgb(self.mean), self._as_rgb(self.std)
        factor = self.scale * np.array(std, np.float64) / file_std
        return factor, (self.scale * np.array(mean, np.float64) - file_mean) / file_std

    def _as_rgb(self, values: Sequence[float]) -> np.ndarray:
        return np.array(values if self.order == "RGB" else values[::-1], np.float64)


TORCHVISION = InputConvention((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The convention of torchvision and of MindSpore's VGG."""

VGG_CAFFE = InputConvention((103.939, 116.779, 123.68), scale=255.0, order="BGR")
"""The convention of VGG's authors, and of Keras."""

FCN_CAFFE = InputConvention((104.00699, 116.66877, 122.67892), scale=255.0, order="BGR")
"""The convention of FCN's authors, and of torchfcn."""

FCN_MINDSPORE = InputConvention((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), 255.0, "BGR")
"""The convention of MindSpore's FCN8s."""
