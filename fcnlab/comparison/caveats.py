"""What makes a comparison less than fair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from fcnlab.comparison.groups import Group


def caveats(groups: Sequence[Group], best: Group | None, monitor: str = "") -> list[str]:
    """Return what a reader of a comparison must know, in a sentence each.

    Args:
        groups: The groups that are compared.
        best: The best of them, if there is one.
        monitor: The metric that is compared.
    """
    found = []
    measured = [trial for group in groups for trial in group.trials]
    by_fold: dict[str, set[str]] = {}
    for trial in measured:
        if trial.validation_digest:
            by_fold.setdefault(trial.fold, set()).add(trial.validation_digest)
    digests = max(by_fold.values(), key=len, default=set())
    if len(digests) > 1:
        found.append(f"measured on {len(digests)} different sets of validation images: not comparable")
    missing = sum(len(group.missing) for group in groups)
    if missing:
        found.append(
            f"{missing} of {len(measured) + missing} trainings are left out: failed, killed, pruned, still running, "
            "or without a finite value"
        )
    if monitor.startswith("val/") and any(len(trial.history) > 1 for trial in measured):
        found.append(
            "each value is the best of several evaluations, chosen on the validation images themselves, which is "
            "optimistic for all groups; fcnlab.evaluate measures on images that nothing was chosen by"
        )
    found += _about_seeds([group for group in groups if group.trials], best)
    for tag, what in (("git.commit", "commits"), ("cpu", "processors"), ("kernels", "sets of operators")):
        values = {trial.tags[tag] for trial in measured if tag in trial.tags}
        if len(values) > 1:
            found.append(f"made with {len(values)} different {what}")
    return found


def _about_seeds(groups: Sequence[Group], best: Group | None) -> list[str]:
    """Say how to read means, differences and the best group where not every group has each seed once."""
    found = []
    seeds = [{trial.pair for trial in group.trials} for group in groups]
    if len(set(map(frozenset, seeds))) > 1:
        found.append("the groups have different seeds: means are over all, differences over the common ones")
        if best is None:
            found.append(
                "no group is the best: since the seeds differ, each is beaten by another one over the seeds that both "
                "have; train every group with the same seeds"
            )
        else:
            found.append("the best group is one that no other beats over common seeds, whatever its mean")
        if any(one.isdisjoint(other) for one, other in combinations(seeds, 2)):
            found.append("groups without a common seed are ranked by their means over all")
    if any(len(own) < len(group.trials) for own, group in zip(seeds, groups, strict=True)):
        found.append("a seed was trained several times: means are over all, differences over the means of each seed")
    return found
