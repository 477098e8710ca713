"""Statistics of the pixels of a split, gathered image by image."""

from __future__ import annotations

import numpy as np

from fcnlab.data.channels import full_range


class PixelStatistics:
    """How often each class occurs, and the mean and standard deviation of each channel.

    Args:
        num_classes: The number of classes.
        channels: The number of channels.

    Attributes:
        class_pixels: The number of pixels of each class, C int64.
        pixels: The number of all pixels, also of those that are void.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        self.class_pixels = np.zeros(num_classes, np.int64)
        self._total, self._squares = np.zeros(channels), np.zeros(channels)  # on the scale 0 to 1
        self.pixels = 0

    def add(self, image: np.ndarray, label: np.ndarray) -> None:
        """Count an image, H x W x C uint8 or uint16, and its label."""
        self.class_pixels += np.bincount(label.ravel(), minlength=256)[: len(self.class_pixels)]
        levels = full_range(image) + 1
        values = np.arange(levels) / (levels - 1)
        for channel in range(image.shape[2]):
            histogram = np.bincount(image[..., channel].ravel(), minlength=levels)
            self._total[channel] += histogram @ values
            self._squares[channel] += histogram @ values**2
        self.pixels += label.size

    def include(self, other: PixelStatistics) -> None:
        """Add what others were gathered, such as those of one image."""
        self.class_pixels += other.class_pixels
        self._total += other._total
        self._squares += other._squares
        self.pixels += other.pixels

    def mean_and_deviation(self) -> tuple[list[float], list[float]]:
        """Return the mean and the standard deviation of each channel on the scale 0 to 1, rounded to four digits."""
        mean = self._total / max(self.pixels, 1)
        deviation = np.sqrt(np.maximum(self._squares / max(self.pixels, 1) - mean**2, 1e-6))
        return np.round(mean, 4).tolist(), np.round(np.maximum(deviation, 1e-3), 4).tolist()
