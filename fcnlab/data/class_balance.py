"""What the frequency of classes says of how to weigh them and how often to draw an image."""

from __future__ import annotations

import numpy as np


def median_frequency(pixels: np.ndarray) -> list[float]:
    """Class weights by median frequency balancing (Eigen & Fergus, ICCV 2015, section 6.3.2).

    ``median(f) / f[c]``, where f[c] is the share of class c in the pixels of the images that it occurs in.

    Args:
        pixels: Of each class in each image, N x C.

    Returns:
        C weights; 0 for a class that does not occur, which has no part in the median.
    """
    pixels = np.asarray(pixels, np.float64)
    present = pixels > 0
    of_class = pixels.sum(axis=0)
    of_images = (pixels.sum(axis=1, keepdims=True) * present).sum(axis=0)
    frequency = np.divide(of_class, of_images, out=np.zeros_like(of_class), where=of_images > 0)
    occurs = frequency > 0
    if not occurs.any():
        return [0.0] * pixels.shape[1]
    median = np.median(frequency[occurs])
    return np.divide(median, frequency, out=np.zeros_like(frequency), where=occurs).tolist()


def repeat_factors(pixels: np.ndarray, threshold: float) -> np.ndarray:
    """How much more often to draw an image than one of frequent classes alone (Gupta et al., CVPR 2019, section 5.1).

    ``max over its classes c of max(1, sqrt(threshold / f[c]))``, where f[c] is the share of images with class c.

    Args:
        pixels: Of each class in each image, N x C.
        threshold: Share of images below which a class counts as rare.

    Returns:
        N factors from 1 up.
    """
    present = np.asarray(pixels) > 0
    share = present.mean(axis=0)
    factors = np.sqrt(np.divide(threshold, share, out=np.ones_like(share), where=share > 0))
    return np.where(present, np.maximum(factors, 1.0), 1.0).max(axis=1, initial=1.0)
