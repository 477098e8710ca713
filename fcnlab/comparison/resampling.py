"""How much of a difference is chance, where chance has two sources: the seeds, and the images that are measured on.

Two networks are trained with the same S seeds and measured on the same N images. In the simplest model, the difference
of seed s on image i is a constant, plus something of the seed, plus something of the image, plus a rest of both. A
metric such as the mean IoU is no mean over images, so the part of the images is found by a bootstrap (Efron 1979): the
images, or whole groups of them, are drawn with replacement many times, and each drawing is measured with every seed.
The drawings are the same for all seeds, since the images are. The seeds are few, and the variance of their mean needs
no drawing.

The parts add up as in an analysis of variance of crossed random effects (Searle, Casella & McCulloch, "Variance
Components", 1992, chapter 4), and each has as many degrees of freedom as it has seeds or images, less one. The sum is
between those of Satterthwaite (1946) and of Graybill & Wang (1980). The bootstrap's variance is too small by
(N - 1) / N, which is corrected. Without all this, the interval between the percentiles of a bootstrap that draws seeds,
and images within each of them, covers 82 % in place of 95 % with 3 seeds and 6 images, and 84 % with 10 and 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from fcnlab.comparison.student import quantile

DRAWS = 10_000
"""The number of drawings of images. The error of a standard error is then below 1 %."""

_AT_ONCE = 2**24  # numbers in memory at a time: 128 MiB
_MOST_UNDEFINED = 0.01  # the share of drawings in which a metric may be undefined, as that of a rare class


class ImageDraws:
    """The same drawings of images for every training that is compared.

    Args:
        count: The number of images or groups, N.
        draws: The number of drawings, R.
        seed: The seed of the drawings.

    Attributes:
        count: The number of images or groups.
        weights: How often each one was drawn, R x N float64.
    """

    def __init__(self, count: int, draws: int = DRAWS, seed: int = 0) -> None:
        self.count = count
        random = np.random.default_rng(seed)
        self.weights = random.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of some values over the images of each drawing.

        Args:
            values: N x ...

        Returns:
            R x ... float64.
        """
        flat = values.reshape(self.count, -1).astype(np.float64)
        columns = max(_AT_ONCE // len(self.weights), 1)
        parts = [self.weights @ flat[:, start : start + columns] for start in range(0, flat.shape[1], columns)]
        return np.concatenate(parts, axis=1).reshape(len(self.weights), *values.shape[1:])


@dataclass(frozen=True)
class Spread:
    """How uncertain the mean of differences is.

    Attributes:
        error: The standard error of the mean.
        freedom: The degrees of freedom of Student's t distribution that fits.
        per_seed: The variance of the mean that further seeds lower, times the number of seeds.
        floor: The variance that stays however many seeds there are, as it comes from the images.
        images: The number of images or groups that were drawn; 0 if none were.
    """

    error: float
    freedom: float
    per_seed: float = np.nan
    floor: float = 0.0
    images: int = 0

    def with_seeds(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the standard error and the degrees of freedom that other numbers of seeds would have."""
        part = self.per_seed / seeds
        total = part + self.floor
        inner = part**2 / (seeds - 1) + (self.floor**2 / (self.images - 1) if self.images > 1 else 0.0)
        return np.sqrt(total), np.divide(total**2, inner, out=np.full(len(seeds), np.inf), where=inner > 0)


def spread_over_seeds(differences: np.ndarray, overlap: float = 0.0) -> Spread:
    """Return the spread of a mean over seeds or folds alone.

    Args:
        differences: The difference of each of at least two seeds or folds.
        overlap: The number of validation images for each training image, if these are folds. Folds share training
            images, so that their differences vary together; Nadeau & Bengio (Machine Learning 52, 2003, section 3)
            raise the variance of the mean from 1 / K to 1 / K + overlap times that of a fold.
    """
    count = len(differences)
    variance = float(np.var(differences, ddof=1))
    return Spread(np.sqrt(variance * (1 / count + overlap)), count - 1, variance, variance * overlap)


def spread_over_images(drawn: np.ndarray, images: int) -> Spread | None:
    """Return the spread of the difference of a single seed over the images alone.

    Args:
        drawn: The difference in each drawing, R.
        images: The number of images or groups.

    Returns:
        None if the difference is undefined in too many drawings.
    """
    kept = _defined(drawn[:, np.newaxis])
    if kept is None or images < 2:
        return None
    return Spread(float(np.sqrt(_unbiased(kept[:, 0], images))), images - 1, images=images)


def spread_over_both(differences: np.ndarray, drawn: np.ndarray, images: int) -> Spread | None:
    """Return the spread of a mean over seeds that were measured on the same images.

    Args:
        differences: The difference of each of S seeds, at least two.
        drawn: The difference of each seed in each drawing of images, R x S.
        images: The number of images or groups.

    Returns:
        None if the difference is undefined in too many drawings.
    """
    kept = _defined(drawn)
    if kept is None or images < 2:
        return None
    seeds = len(differences)
    by_seed = float(np.var(differences, ddof=1)) / seeds  # the seeds' part and the rest's
    by_image = _unbiased(kept.mean(axis=1), images)  # the images' part and the rest's
    within = float(np.mean([_unbiased(kept[:, seed], images) for seed in range(seeds)]))
    rest = max((within - by_image) / (seeds - 1), 0.0)  # which both hold
    # The rest is subtracted, as it was counted twice. It is uncertain itself, and the sum is at least either part.
    variance = max(by_seed + by_image - rest, by_seed, by_image)
    freedom = _freedom_of_sum(variance, (by_seed, by_image), (seeds - 1, images - 1))
    return Spread(float(np.sqrt(variance)), freedom, by_seed * seeds, max(by_image - rest, 0.0), images)


def _freedom_of_sum(variance: float, parts: tuple[float, float], freedoms: tuple[int, int]) -> float:
    """Return the degrees of freedom of a variance that is the sum of two parts, less what both hold.

    Satterthwaite's degrees of freedom are estimated themselves, and an interval by them is too short where a part of 2
    degrees happens to come out small. That of Graybill & Wang (JASA 75, 1980), the root of the sum of the squares of
    both parts' own half-widths, is too long. In simulations, the weights below cover best.
    """
    values, own = np.array(parts), np.array(freedoms, dtype=np.float64)
    inner = float((values**2 / own).sum())
    if inner == 0:
        return np.inf
    short = quantile(0.975, variance**2 / inner) ** 2
    long = float((quantile(0.975, own) ** 2 * values).sum() / values.sum())
    inverse, quantiles = _quantiles()
    return 1 / max(float(np.interp(np.sqrt((3 * short + long) / 4), quantiles, inverse)), 1e-9)


@cache
def _quantiles() -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of inverse degrees of freedom, and the 97.5 % point of t for each, which grows with them."""
    inverse = np.linspace(1e-9, 2, 2001)
    return inverse, quantile(0.975, 1 / inverse)


def _unbiased(values: np.ndarray, images: int) -> float:
    """Return the variance over drawings, which is too small by (N - 1) / N, corrected for that."""
    return float(np.var(values)) * images / (images - 1)


def _defined(drawn: np.ndarray) -> np.ndarray | None:
    kept = drawn[np.isfinite(drawn).all(axis=1)]
    return kept if len(kept) >= (1 - _MOST_UNDEFINED) * len(drawn) else None
