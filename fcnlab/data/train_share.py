"""A share of the training images, for a learning curve: how much better a network gets with more of them.

The shares are nested: with one seed, the images of a smaller share are among those of every larger one, so that a
curve over the shares does not jump because other images were drawn. Another seed draws other images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcnlab.data.dataset import Dataset
from fcnlab.data.wrappers import Subset


def share_of(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Return a share of a data set, drawn as `draw_share` does; the data set itself if the share is 1.

    Args:
        dataset: The training split, with at least one sample.
        share: The share of the samples, above 0 and at most 1.
        seed: The seed of the draw.
    """
    return dataset if share == 1 else Subset(dataset, draw_share(dataset.groups, share, seed))


def draw_share(groups: Sequence[str], share: float, seed: int) -> list[int]:
    """Draw a share of samples from whole groups.

    The groups are put in an order that depends on the seed alone, and the first ones are taken: as many as come nearest
    to the share of the samples, and at least one. If all samples are of one group, each one counts as its own.

    Args:
        groups: The group of each sample.
        share: The share of the samples, above 0 and at most 1.
        seed: The seed of the order.

    Returns:
        The places of the drawn samples, ascending.
    """
    _, group_of = np.unique(np.array(groups, dtype=str), return_inverse=True)
    if group_of.max() == 0:
        group_of = np.arange(len(groups))
    sizes = np.bincount(group_of)
    order = np.random.default_rng(seed).permutation(len(sizes))
    distance = np.abs(np.cumsum(sizes[order]) - share * len(groups))
    drawn = order[: int(distance.argmin()) + 1]
    return np.flatnonzero(np.isin(group_of, drawn)).tolist()
