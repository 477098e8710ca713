"""Simulates differences between two networks whose seeds and images are drawn from known populations."""

import numpy as np
from scipy import stats

from fcnlab.comparison.resampling import ImageDraws, spread_over_both
from fcnlab.metrics.marginals import marginals, measure

PIXELS = 4096
CLASSES = ["membrane", "cell"]


def covers(mean, spread, truth):
    """Whether the 95 % interval holds the true difference."""
    return abs(mean - truth) <= stats.t.ppf(0.975, spread.freedom) * spread.error


def coverage_of_means(seeds, images, repeats, *, seed_part=1.0, image_part=1.0, rest=0.3, draws=200):
    """Return how often the interval covers, where a metric is a mean over images.

    The parts are standard deviations of the mean difference: that of the seeds, that of the images, and that of what
    depends on both, which is ``rest`` times an image's own.
    """
    random = np.random.default_rng(seeds * 1000 + images)
    drawings = ImageDraws(images, draws)
    hits = 0
    for _ in range(repeats):
        of_seed = random.normal(0, seed_part * np.sqrt(seeds), (seeds, 1))
        of_image = random.normal(0, image_part * np.sqrt(images), (1, images))
        values = of_seed + of_image + random.normal(0, rest * image_part * np.sqrt(images), (seeds, images))
        drawn = drawings.sums(values.T) / images
        spread = spread_over_both(values.mean(axis=1), drawn, images)
        hits += covers(values.mean(), spread, 0.0)
    return hits / repeats


def counts(random, seeds, images):
    """Return confusion matrices of two networks on the same uneven images, 2 x seeds x images x 2 x 2."""
    share = random.beta(4, 12, (1, 1, images))  # of the membrane
    hard = random.normal(0, 0.3, (1, 1, images)) + random.normal(0, 0.1, (2, 1, images))
    luck = random.normal(0, 0.12, (2, seeds, 1)) + random.normal(0, 0.1, (2, seeds, images))
    level = np.array([-1.5, -1.7]).reshape(2, 1, 1)
    wrong = 1 / (1 + np.exp(-(level + hard + luck)))
    true = np.broadcast_to((PIXELS * share).astype(int), wrong.shape)
    missed = random.binomial(true, np.minimum(1.5 * wrong, 0.95))
    invented = random.binomial(PIXELS - true, 0.5 * wrong)
    rows = [np.stack([true - missed, missed], axis=-1), np.stack([invented, PIXELS - true - invented], axis=-1)]
    return np.stack(rows, axis=-2)


def iou(values):
    return measure(marginals(values), "val/mean_iou", CLASSES)


def coverage_of_iou(seeds, images, repeats, draws=400):
    """Return how often the interval covers the mean IoU's difference, which is of the counts of all images together."""
    random = np.random.default_rng(seeds * 1000 + images)
    one, other = (iou(part.sum(axis=1)).mean() for part in counts(np.random.default_rng(0), 400, 4000))
    drawings = ImageDraws(images, draws)
    hits = 0
    for _ in range(repeats):
        found = counts(random, seeds, images)
        values = iou(found.sum(axis=2))
        sums = drawings.sums(np.moveaxis(marginals(found), 2, 0))
        drawn = measure(sums, "val/mean_iou", CLASSES)
        spread = spread_over_both(values[0] - values[1], drawn[:, 0] - drawn[:, 1], images)
        hits += covers((values[0] - values[1]).mean(), spread, one - other)
    return hits / repeats
