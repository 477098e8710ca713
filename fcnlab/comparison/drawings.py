"""Measures every training of a comparison on the same drawings of images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from fcnlab.comparison.groups import Group
from fcnlab.comparison.resampling import ImageDraws
from fcnlab.comparison.significance import Drawn
from fcnlab.comparison.trials import Trial
from fcnlab.metrics.marginals import is_known, marginals, measure

_TOLERANCE = 1e-9  # by which a metric of the counts may differ from the recorded one, which is rounded otherwise
_NOTHING = "no interval covers the chance of the images"
_MOST_UNITS = 1000
"""The number of parts that are drawn from at most. More images are put together in the order of their names: as many
parts tell their variance just as well, and the drawings fit into memory."""


def draw_images(groups: Sequence[Group], monitor: str) -> tuple[dict[str, Drawn], str | None]:
    """Measure the trainings of all groups on drawings of the images that all of them were measured on.

    Args:
        groups: The groups.
        monitor: The metric that is compared.

    Returns:
        What was measured, by the label of the group, and why nothing was, as a sentence; nothing is no problem, but
        then no interval covers the chance of the images.
    """
    trials = [trial for group in groups for trial in group.trials]
    if not trials or len(groups) < 2:
        return {}, None
    reasons = Counter(reason for trial in trials if (reason := why_unusable(trial, monitor)) is not None)
    if reasons:
        (reason, _), count = reasons.most_common(1)[0], sum(reasons.values())
        return {}, f"{count} of {len(trials)} trainings {reason}: {_NOTHING}"
    first = trials[0].image_counts
    if any(trial.image_counts.names != first.names for trial in trials):
        if any(trial.fold for trial in trials):
            return {}, None  # each fold has images of its own, whose chance is in the differences between folds
        return {}, f"the trainings have counts of different images: {_NOTHING}"
    groups_of_images = _coarsest(trials)
    count = len(set(groups_of_images))
    if count < 2:
        if len(first.names) == 1:
            return {}, f"one image was measured: {_NOTHING}"
        return {}, (
            f"all images are of one group, '{groups_of_images[0]}': {_NOTHING}, unless fcnlab.prepare is told which of "
            "them are independent, by group_by"
        )
    draws = ImageDraws(min(count, _MOST_UNITS))
    return {
        group.label: Drawn(dict(_by_seed(group, monitor, draws, groups_of_images)), count)
        for group in groups
        if group.trials
    }, None


def pooled(group: Group, monitor: str) -> float | None:
    """Return a metric of the validation images of all folds together, the mean over seeds.

    The mean over folds weights each fold alike; the images together are what one evaluation of all images would give,
    each by the network that has not seen it.

    Returns:
        None if the trainings of the group have no folds, or no usable counts of their images, or if a seed was not
        trained once on each fold, so that its images would not be those of all folds.
    """
    if len({trial.fold for trial in group.trials}) < 2:
        return None
    if any(why_unusable(trial, monitor) is not None for trial in group.trials):
        return None
    folds = sorted({trial.fold for trial in group.trials})
    by_seed: dict[str, list[str]] = {}
    for trial in group.trials:
        by_seed.setdefault(trial.seed, []).append(trial.fold)
    if any(sorted(found) != folds for found in by_seed.values()):
        return None
    totals: dict[str, np.ndarray] = {}
    for trial in group.trials:
        totals[trial.seed] = totals.get(trial.seed, 0) + trial.image_counts.total
    names = group.trials[0].class_names
    return float(np.mean([measure(marginals(total), monitor, names) for total in totals.values()]))


def unit(groups: Sequence[Group]) -> str:
    """Return what was drawn: ``images``, or ``groups of images`` where images belong together."""
    counted = [trial for group in groups for trial in group.trials if trial.image_counts is not None]
    found = _coarsest(counted) if counted else ()
    return "images" if len(set(found)) == len(found) else "groups of images"


def _coarsest(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the fewest groups of images that any training recorded: what belongs together for one does for all."""
    return min((trial.image_counts.groups for trial in trials), key=lambda groups: (len(set(groups)), groups))


def why_unusable(trial: Trial, monitor: str) -> str | None:
    """Say why a training cannot be measured on drawings of images, as the second half of a sentence; None if it can."""
    counts, names = trial.image_counts, trial.class_names
    if not monitor.startswith("val/"):
        return f"have no counts of the images of {monitor}"
    if monitor == "val/loss" or (counts is not None and not is_known(monitor, names)):
        return f"have a {monitor}, which does not follow from counts of pixels"
    if counts is None:
        return trial.why_no_counts or "have no counts of their images, as those of earlier versions or many classes"
    if counts.step != trial.best_step:
        return "have counts of images of another evaluation than their best one"
    found = float(measure(marginals(counts.total), monitor, names))
    if not math.isclose(found, trial.metrics[monitor], rel_tol=0, abs_tol=_TOLERANCE):
        return f"have counts of images that give another {monitor} than was recorded"
    return None


def _by_seed(group: Group, monitor: str, draws: ImageDraws, groups: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each pair's key with its metric in each drawing; of a seed that was trained several times, the mean.

    The groups of the images are given, so that they are the same for all trainings, whatever each one recorded.
    """
    by_seed: dict[str, list[np.ndarray]] = {}
    for trial in group.trials:
        _, counts = trial.image_counts.by_group(groups)
        starts = np.linspace(0, len(counts), draws.count, endpoint=False).astype(int)
        units = np.add.reduceat(marginals(counts), starts, axis=0)
        measured = measure(draws.sums(units), monitor, trial.class_names)
        by_seed.setdefault(trial.pair, []).append(measured)
    for seed, values in by_seed.items():
        yield seed, values[0] if len(values) == 1 else np.mean(values, axis=0)
