"""How much better a network gets with more training images: the law of each curve over ``dataset.train_share``.

A gain has three sources of chance. The seeds, which draw other images and other initial weights, and how far the points
are from any power law are in the interval of the fit (see `fcnlab.comparison.power_law`). The images that are measured
on are drawn anew, as for every comparison. Both parts are independent, and the ends of the interval are added up as
Zou & Donner ("Construction of confidence limits about effect measures", Statistics in Medicine 27, 2008) do, who need
not assume that either is symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fcnlab.comparison.groups import Group
from fcnlab.comparison.power_law import FEWEST_SIZES, Estimate, PowerLaw, fit
from fcnlab.comparison.significance import ROUNDING, Drawn
from fcnlab.comparison.student import quantile

AXIS = "dataset.train_share"
"""The key that a learning curve is over."""


@dataclass(frozen=True)
class Point:
    """A training of a curve: its number of training images, its seed or fold and seed, and its score."""

    images: int
    pair: str
    score: float


@dataclass(frozen=True)
class LearningCurve:
    """The trainings that differ in nothing but their training images, their seed and their fold.

    Attributes:
        label: What else was set, such as ``fcn8s``; empty if nothing else varies.
        points: Its trainings, by their number of images; of one seed, each number once.
        law: The law that fits them; None if they are too few for one.
        why_none: Why there is no law, in a sentence; None if there is one.
        images: The number of images, or of groups of them, that were measured on and drawn anew; 0 if none were, so
            that the interval does not cover their chance.
        drawings: The scores of the points in each drawing of the images, points x R; None if there are none.
    """

    label: str
    points: Sequence[Point]
    law: PowerLaw | None = None
    why_none: str | None = None
    images: int = 0
    drawings: np.ndarray | None = None

    @property
    def largest(self) -> int:
        """The largest number of images that was trained on."""
        return max(point.images for point in self.points)

    def gain(self, more: int) -> Estimate:
        """Return what further images would add to the score of the largest number of them.

        Args:
            more: The number of further images.

        Raises:
            ValueError: If the curve has no law.
        """
        if self.law is None:
            raise ValueError("a curve without a law")
        now, then = self.largest, self.largest + more
        found = self.law.gain(now, then)
        if self.drawings is None or math.isnan(found.low):
            return found
        drawn = self.law.weights(now, then) @ self.drawings
        error = math.sqrt(float(np.var(drawn)) * self.images / (self.images - 1))
        half = float(quantile(0.975, self.images - 1)) * error
        below, above = math.hypot(found.value - found.low, half), math.hypot(found.high - found.value, half)
        return Estimate(found.value, found.value - below, found.value + above)


def learning_curves(
    groups: Sequence[Group], axes: Sequence[str], monitor: str, drawn: Mapping[str, Drawn]
) -> list[LearningCurve]:
    """Return a curve for each setting of the other axes; none if the share of the training images does not vary.

    Args:
        groups: The groups of a comparison.
        axes: The keys that vary.
        monitor: The metric that is compared.
        drawn: The trainings of each group on drawings of images, by its label; nothing if they are not known.
    """
    if AXIS not in axes:
        return []
    series: dict[str, list[Group]] = {}
    for group in groups:
        if group.trials:
            rest = Group({key: value for key, value in group.settings.items() if key != AXIS}, ())
            series.setdefault(rest.label, []).append(group)
    return [_curve(label, members, monitor, drawn) for label, members in series.items()]


def _curve(label: str, groups: Sequence[Group], monitor: str, drawn: Mapping[str, Drawn]) -> LearningCurve:
    found: dict[tuple[int, str], tuple[float, np.ndarray | None]] = {}
    unknown, images = 0, 0
    for group in groups:
        sizes = {trial.pair: trial.training_images for trial in group.trials}
        on_drawings = drawn.get(group.label)
        images = 0 if on_drawings is None else on_drawings.images
        for pair, score in group.by_seed(monitor).items():
            size = sizes[pair]
            if size is None:
                unknown += 1
                continue
            # Two shares of few images may be the same ones, which is no second training.
            found.setdefault((size, pair), (score, None if on_drawings is None else on_drawings.by_seed[pair]))
    keys = sorted(found)
    points = [Point(size, pair, found[size, pair][0]) for size, pair in keys]
    if unknown:
        return LearningCurve(label, points, why_none=f"{unknown} trainings do not say how many images they trained on")
    scores = np.array([point.score for point in points])
    if len(points) > 1 and np.ptp(scores) <= ROUNDING * np.abs(scores).max():
        # A fit would be exact, and its interval of no width.
        return LearningCurve(label, points, why_none=_ALL_THE_SAME)
    try:
        law = fit([point.images for point in points], [point.score for point in points], [pair for _, pair in keys])
    except ValueError:
        return LearningCurve(label, points, why_none=_too_few(points))
    drawings = [found[key][1] for key in keys]
    if images < 2 or any(scores is None or not np.isfinite(scores).all() for scores in drawings):
        return LearningCurve(label, points, law)
    return LearningCurve(label, points, law, images=images, drawings=np.stack(drawings))


_ALL_THE_SAME = (
    "all trainings have the same score, whatever they were trained on, as networks have that have hardly begun to "
    "learn: nothing is extrapolated; train them for longer"
)


def _too_few(points: Sequence[Point]) -> str:
    sizes = sorted({point.images for point in points})
    if len(sizes) >= FEWEST_SIZES:
        return "no seed was trained on two numbers of images: train each seed with every share"
    listed = " and ".join(map(str, sizes))
    return (
        f"nothing is extrapolated from {listed} training images, since that takes {FEWEST_SIZES} sizes: train more "
        f"shares, as in {AXIS}=0.25,0.5,1"
    )
