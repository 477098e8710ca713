"""The one sentence at the top of a comparison: who wins, by how much, and how sure that is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fcnlab.comparison.significance import Difference
from fcnlab.comparison.verdict import POWER
from fcnlab.metrics.names import SUMMARY, higher_is_better

if TYPE_CHECKING:
    from fcnlab.comparison.comparison import Comparison
    from fcnlab.comparison.groups import Group


def conclusion(comparison: Comparison) -> str:
    """Return the sentence, or two where a reader has to know what would settle it."""
    measured = comparison.measured
    metric = metric_in_words(comparison.monitor)
    if not measured:
        return f"No training has a value of {metric}, so that there is nothing to compare."
    if len(measured) == 1:
        return _only(measured[0], comparison.monitor, metric)
    if comparison.has_baseline:
        return _against_baseline(comparison, metric)
    if comparison.best is None:
        return (
            f"No group is the best by {metric}: the groups have different seeds, and each is beaten by another one over"
            " the seeds that both have; train every group with the same seeds."
        )
    rival = _nearest(comparison)
    best, second = _name(comparison.best), _name(rival)
    difference = comparison.differences[rival.label]
    word = comparison.verdicts[rival.label].word
    beaten = [group for group in measured if group is not comparison.best]
    all_beaten = all(comparison.verdicts[group.label].word == "worse" for group in beaten)
    if word == "tied":
        return f"{best} and {second} are tied: they have the same {metric} in {_pairs(difference)}."
    if not difference.pairs:
        return f"It is undecided whether {best} is better than {second}. {what_would_settle(comparison, rival)}"
    lead = _amount(difference, comparison, metric)
    if word == "worse":
        others = "all others; the next one is" if len(beaten) > 1 and all_beaten else ""
        what = f"{others} {second}, by" if others else f"{second} by"
        return f"{best} is better than {what} {lead}{_certainty(difference, comparison)}."
    if word == "equivalent":
        return (
            f"{best} and {second} are equivalent: their difference of {lead} is within the margin of "
            f"{comparison.margin:g}{_certainty(difference, comparison, equivalence=True)}."
        )
    return (
        f"It is undecided whether {best} is better than {second}: it leads by {lead}"
        f"{_certainty(difference, comparison)}. {what_would_settle(comparison, rival)}"
    )


def metric_in_words(monitor: str) -> str:
    """Return a metric as a sentence has it, such as ``mean IoU``."""
    return SUMMARY.get(monitor, monitor.removeprefix("val/"))


def what_would_settle(comparison: Comparison, group: Group) -> str:
    """Return a sentence on what would settle an undecided difference from the reference."""
    difference, verdict = comparison.differences[group.label], comparison.verdicts[group.label]
    if difference.pairs == 0:
        return "They have no seed in common; train both with the same seeds."
    if difference.pairs == 1 and not difference.over_folds:
        return "One seed cannot say what another one would give; train both with further seeds, as in seed=1,2,3."
    if difference.is_constant:
        return (
            "All pairs have the very same difference, which says nothing about chance; train both with further seeds."
        )
    if verdict.further_seeds is not None:
        count = verdict.further_seeds
        seeds = "One further seed" if count == 1 else f"{count} further seeds"
        return f"{seeds} of each would settle it with a probability of {POWER:.0%}, if the difference stays as it is."
    if verdict.needs_images:
        return f"Further seeds would not settle it, since it depends on the {comparison.unit}: measure on more of them."
    if difference.over_folds:
        return "Further seeds for each fold, or more images, may settle it."
    return "No number of seeds up to 1,000 would settle it."


def _only(group: Group, monitor: str, metric: str) -> str:
    count, mean, spread = len(group.trials), group.mean(monitor), group.spread(monitor)
    deviation = "" if math.isnan(spread) else f" ± {spread:.4f}"
    return f"{_name(group)} reaches a {metric} of {mean:.4f}{deviation} over {_counted(count, 'training')}."


def _against_baseline(comparison: Comparison, metric: str) -> str:
    base = _name(comparison.reference)
    others = [group for group in comparison.measured if group is not comparison.reference]
    if comparison.reference not in comparison.measured or not others:
        return f"The baseline {base} has nothing to be compared with."
    sign = 1 if higher_is_better(comparison.monitor) else -1
    known = [group for group in others if not math.isnan(comparison.differences[group.label].mean)]
    if not known:
        return f"No group has a seed in common with the baseline {base}; train all with the same seeds."
    group = max(known, key=lambda group: sign * comparison.differences[group.label].mean)
    difference, word = comparison.differences[group.label], comparison.verdicts[group.label].word
    if word == "tied":
        return f"{_name(group)} and the baseline {base} are tied: they have the same {metric} in {_pairs(difference)}."
    lead, sure = _amount(difference, comparison, metric), _certainty(difference, comparison)
    if word == "better":
        most = ", the most of all," if len(known) > 1 else ""
        return f"{_name(group)} is better than the baseline {base}{most} by {lead}{sure}."
    if word == "worse":
        of_all = len(others) > 1 and all(comparison.verdicts[one.label].word == "worse" for one in others)
        what = "every other group" if of_all else _name(group)
        nearest = f", of which {_name(group)} is the nearest," if of_all else ""
        return f"The baseline {base} is better than {what}{nearest} by {lead}{sure}."
    if word == "equivalent":
        sure = _certainty(difference, comparison, equivalence=True)
        return (
            f"{_name(group)} and the baseline {base} are equivalent: their difference of {lead} is within the margin"
            f" of {comparison.margin:g}{sure}."
        )
    verb = "leads" if sign * difference.mean > 0 else "is behind"
    return (
        f"It is undecided whether {_name(group)} is better than the baseline {base}: it {verb} by {lead}{sure}. "
        f"{what_would_settle(comparison, group)}"
    )


def _nearest(comparison: Comparison) -> Group:
    """Return the group that comes nearest to the best one; those without a common seed come last."""
    others = [group for group in comparison.measured if group is not comparison.best]

    def distance(group: Group) -> float:
        mean = comparison.differences[group.label].mean
        return math.inf if math.isnan(mean) else abs(mean)

    return min(others, key=distance)


def _amount(difference: Difference, comparison: Comparison, metric: str) -> str:
    interval = ""
    if not math.isnan(difference.low):
        low, high = sorted((difference.low, difference.high), key=lambda end: end * math.copysign(1, difference.mean))
        signed = (end * math.copysign(1, difference.mean) for end in (low, high))
        interval = " (95 % interval {:.4f} to {:.4f})".format(*signed)
    return f"{abs(difference.mean):.4f} of {metric}{interval}"


def _certainty(difference: Difference, comparison: Comparison, equivalence: bool = False) -> str:
    """Return what the difference rests on, with its p-value, to be put after the amount."""
    p = difference.equivalence_p if equivalence else difference.p
    if math.isnan(p):
        return ""
    what = f" {'for equivalence' if equivalence else ''}".rstrip()
    corrected = ", corrected for all pairs of groups" if comparison.comparisons > len(comparison.measured) - 1 else (
        f", corrected for {comparison.comparisons} comparisons" if comparison.comparisons > 1 else ""
    )  # fmt: skip
    value = "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
    return f", over {_rests_on(difference, comparison)}; {value}{what}{corrected}"


def _rests_on(difference: Difference, comparison: Comparison) -> str:
    if not difference.images:
        return _pairs(difference)
    images = f"{difference.images} {comparison.unit}"
    return f"{images} and a single seed" if difference.pairs == 1 else f"{_pairs(difference)} and {images}"


def _pairs(difference: Difference) -> str:
    return f"{difference.pairs} pairs of folds" if difference.over_folds else _counted(difference.pairs, "seed")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _name(group: Group) -> str:
    return group.label or "the only group"
