"""How rare classes are made up for, by class weights or by drawing their images more often."""

from __future__ import annotations

import numpy as np


def median_frequency(pixels: np.ndarray) -> list[float]:
    """Return class weights by median frequency balancing (Eigen & Fergus, ICCV 2015, section 6.3.2).

    The weight of class c is ``median(f) / f[c]``, where f[c] is its share in the pixels of the images that have it.

    Args:
        pixels: The number of pixels of each class in each image, N x C.

    Returns:
        C weights; 0 for a class that does not occur, which has no part in the median.
    """
    pixels = np.asarray(pixels, np.float64)
    present = pixels > 0
    of_class = pixels.sum(axis=0)
    pixels_of_images = (pixels.sum(axis=1, keepdims=True) * present).sum(axis=0)
    frequency = np.divide(of_class, pixels_of_images, out=np.zeros_like(of_class), where=pixels_of_images > 0)
    occurs = frequency > 0
    if not occurs.any():
        return [0.0] * pixels.shape[1]
    median = np.median(frequency[occurs])
    return np.divide(median, frequency, out=np.zeros_like(frequency), where=occurs).tolist()


def repeat_factors(pixels: np.ndarray, threshold: float) -> np.ndarray:
    """Return how much more often to draw each image than one without rare classes (Gupta et al., CVPR 2019, 5.1).

    An image's factor is the largest of ``max(1, sqrt(threshold / f[c]))`` over its classes c, where f[c] is the share
    of images with class c.

    Args:
        pixels: The number of pixels of each class in each image, N x C.
        threshold: The share of images below which a class counts as rare.

    Returns:
        N factors from 1 up.
    """
    present = np.asarray(pixels) > 0
    share = present.mean(axis=0)
    factors = np.sqrt(np.divide(threshold, share, out=np.ones_like(share), where=share > 0))
    return np.where(present, np.maximum(factors, 1.0), 1.0).max(axis=1, initial=1.0)
