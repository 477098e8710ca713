"""How a comparison reads: the cells of its tables, and what a reader must know about them."""

from __future__ import annotations

import math

from fcnlab.comparison.comparison import Comparison
from fcnlab.comparison.conclusion import metric_in_words, what_would_settle
from fcnlab.comparison.drawings import pooled
from fcnlab.comparison.groups import Group, why_left_out
from fcnlab.comparison.power_law import EXPONENTS, PowerLaw
from fcnlab.comparison.resampling import DRAWS
from fcnlab.comparison.significance import Difference
from fcnlab.core.progress import clock


def cells(comparison: Comparison, group: Group) -> list[str]:
    """Return a group's texts, empty where nothing is known.

    Returns:
        The number of trainings, mean and deviation, difference, pairs, p and verdict.
    """
    found = comparison.differences.get(group.label)
    if group is comparison.reference:
        difference = ["reference", "", "", ""]
    elif found is None:
        difference = ["", "", "", ""]
    else:
        verdict = comparison.verdicts[group.label].word
        difference = [_interval(found), str(found.pairs), _probability(found.p), verdict]
    return [
        counted(group),
        mean_and_spread(group, comparison.monitor),
        *difference,
    ]


def costs(group: Group) -> list[str]:
    """Return the number of the network's parameters, the time and the images per second, empty where not known."""
    return [
        f"{group.parameters:,}" if group.parameters else "",
        "" if math.isnan(group.seconds) else clock(group.seconds),
        "" if math.isnan(group.images_per_second) else f"{group.images_per_second:.1f}",
    ]


def counted(group: Group) -> str:
    """Return how many trainings have a value, and of how many if some have none."""
    missing = len(group.missing)
    return f"{len(group.trials)} of {len(group.trials) + missing}" if missing else str(len(group.trials))


def mean_and_spread(group: Group, metric: str) -> str:
    """Return a text such as ``0.7192 ± 0.0031``; empty without a value."""
    mean, spread = group.mean(metric), group.spread(metric)
    if math.isnan(mean):
        return ""
    return f"{mean:.4f}" if math.isnan(spread) else f"{mean:.4f} ± {spread:.4f}"


def explanation(comparison: Comparison) -> str:
    """Explain in words what the numbers are."""
    reference = comparison.reference
    chosen = ""
    if comparison.has_baseline:
        chosen = " (the baseline)"
    elif reference is comparison.best:
        chosen = " (the best by the same numbers)"
    elif comparison.best is None and reference.trials:
        chosen = " (no group is the best; this one has the best mean)"
    found = [item for label, item in comparison.differences.items() if label != reference.label]
    sentences = [
        f"sd is the standard deviation over seeds (n - 1). Differences are from {reference.label or 'the only group'}"
        f"{chosen} and paired by seed, over as many pairs as the table says."
    ]
    images = next((item.images for item in found if item.images), 0)
    if any(item.over_folds for item in found):
        sentences.append(
            "A pair is a fold, with a seed. The interval is Student's t interval over the pairs, which is corrected "
            "for the training images that folds share (Nadeau & Bengio 2003)."
        )
    elif images:
        single = " Of a single pair it covers the images alone." if any(item.pairs == 1 for item in found) else ""
        sentences.append(
            f"The 95 % interval covers the chance of the seeds and that of the {images} {comparison.unit} that were "
            f"measured, which were drawn {DRAWS:,} times.{single}"
        )
    else:
        sentences.append(
            "The interval is Student's t interval over the seeds; it does not cover the chance of the images."
        )
    correction = (
        f"Since the reference is chosen by the same numbers, p is corrected for all {comparison.comparisons} pairs of "
        "groups (Holm 1979)"
        if comparison.comparisons > len(found)
        else "p is corrected for the number of groups (Holm 1979)"
    )
    sentences.append(f"{correction}; the intervals are not. Fewer than two common seeds without images give neither.")
    if comparison.margin is not None:
        sentences.append(
            f"Equivalent means that the difference is within {comparison.margin:g}, by two one-sided tests at 5 %."
        )
    return " ".join(sentences)


def beside_the_interval(comparison: Comparison) -> list[str]:
    """Return a line for each group with what the seeds alone say, where the table's interval says more than they do."""
    lines = []
    for group in comparison.measured:
        found = comparison.differences.get(group.label)
        if found is None or group is comparison.reference or math.isnan(found.seeds_low):
            continue
        texts = []
        if found.images:
            p = _probability(found.seeds_p)
            texts.append(f"t interval [{found.seeds_low:+.4f}, {found.seeds_high:+.4f}], p {_equals(p)}")
        if not math.isnan(found.wilcoxon_p):
            texts.append(f"Wilcoxon's signed-rank test p {_equals(_probability(found.wilcoxon_p))}")
        if texts:
            lines.append(f"{group.label or 'all'}: over the {found.pairs} seeds alone {'; '.join(texts)}, uncorrected")
    return lines


def undecided(comparison: Comparison) -> list[str]:
    """Return a line for each group whose difference is undecided, with what would settle it.

    Of two groups the conclusion says it already, and a single seed settles nothing in any group.
    """
    if len(comparison.measured) < 3:
        return []
    return [
        f"{group.label or 'all'} is undecided: {what_would_settle(comparison, group)}"
        for group in comparison.measured
        if group.label in comparison.verdicts
        and comparison.differences[group.label].pairs > 1
        and group is not comparison.reference
        and comparison.verdicts[group.label].word == "undecided"
    ]


def left_out(comparison: Comparison) -> list[str]:
    """Return a line for each training that does not count, with the reason; pruned ones are as the search wanted."""
    return [
        f"{trial.name} ({trial.run_id[:8]}): {why_left_out(trial, comparison.monitor)}"
        for group in comparison.groups
        for trial in group.missing
        if not trial.pruned
    ]


def remarks(comparison: Comparison) -> list[str]:
    """Return all that a reader must know beside the table, a line each."""
    missing = [comparison.why_no_images] if comparison.why_no_images is not None else []
    lines = [*curve_lines(comparison), *comparison.warnings, *left_out(comparison), *missing]
    return [*lines, *pooled_lines(comparison), *undecided(comparison), *beside_the_interval(comparison)]


def curve_lines(comparison: Comparison) -> list[str]:
    """Return a line for each learning curve: what as many images again would add, and the law that says so."""
    lines = []
    for curve in comparison.curves:
        name = f"{curve.label}: " if curve.label else ""
        if curve.law is None:
            lines.append(f"{name}{curve.why_none}")
            continue
        gain = curve.gain(curve.largest)
        covered = "the seeds" if curve.images == 0 else f"the seeds and of the {curve.images} {comparison.unit}"
        interval = (
            "without an interval, which takes a further size or seed"
            if math.isnan(gain.low)
            else f"95 % interval {gain.low:+.4f} to {gain.high:+.4f}, of the chance of {covered}"
        )
        lines.append(
            f"{name}{curve.largest} more training images, {2 * curve.largest} in place of {curve.largest}: "
            f"{gain.value:+.4f} of {metric_in_words(comparison.monitor)} ({interval}); {law_in_words(curve.law)}"
        )
    return lines


def law_in_words(law: PowerLaw) -> str:
    """Return the formula of a power law, and which end of the known exponents it is at, if it is at one."""
    sign = "-" if law.factor >= 0 else "+"
    formula = f"{law.limit:.4g} {sign} {abs(law.factor):.4g} n^-{law.exponent:.2f}"
    if law.exponent <= EXPONENTS[0]:
        return f"the points show no end of the growth, which is about logarithmic: {formula}"
    if law.exponent >= EXPONENTS[-1]:
        return f"the points show no growth beyond the first sizes: {formula}"
    return f"power law {formula}"


def pooled_lines(comparison: Comparison) -> list[str]:
    """Return a line for each group of folds with its metric on the images of all folds together."""
    found = ((group, pooled(group, comparison.monitor)) for group in comparison.measured)
    return [
        f"{group.label or 'all'}: {value:.4f} on the images of all {len({trial.fold for trial in group.trials})} folds "
        "together"
        for group, value in found
        if value is not None
    ]


def beside_the_best(comparison: Comparison) -> str:
    """Return what to add to the best training if it does not belong to the best group; empty otherwise."""
    if comparison.best is None or any(trial is comparison.best_trial for trial in comparison.best.trials):
        return ""
    return ", not of the best group"


def _interval(difference: Difference) -> str:
    """Return a text such as ``-0.0312 [-0.0401, -0.0223]``."""
    if math.isnan(difference.mean):
        return ""
    interval = "" if math.isnan(difference.low) else f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{difference.mean:+.4f}{interval}"


def _equals(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"


def _probability(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
