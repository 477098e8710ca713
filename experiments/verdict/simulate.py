"""How often ``hydra/sweeper=verdict`` errs, and how many trainings it needs, in simulated studies.

Each study draws the differences of its pairs from a normal distribution of standard deviation 1 and looks at them as
the sweeper does. Beside it stands the study of a fixed number of 10 seeds, which always takes 20 trainings.

    python experiments/verdict/simulate.py [studies]
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import special

from fcnlab.comparison.sequential import Design

SEEDS = 10
EFFECTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def sequential(effect: float, margin: float | None, studies: int) -> tuple[dict[str, float], float]:
    """Return the share of each end, and the mean number of trainings."""
    design, ends, pairs = Design(max_pairs=12), [], []
    for values in np.random.default_rng(1).normal(effect, 1, (studies, design.max_pairs)):
        for count in range(1, design.max_pairs + 1):
            look = design.look(values[:count], margin)
            if look.decision != "continue":
                break
        ends.append("wrong sign" if look.decision == "different" and look.mean < 0 < effect else look.decision)
        pairs.append(look.pairs)
    return {end: ends.count(end) / studies for end in set(ends)}, 2 * float(np.mean(pairs))


def fixed(effect: float, margin: float | None, studies: int = 100_000) -> tuple[float, float]:
    """Return how often 10 seeds find a difference, and how often they find equivalence."""
    values = np.random.default_rng(2).normal(effect, 1, (studies, SEEDS))
    mean, error = values.mean(axis=1), values.std(axis=1, ddof=1) / np.sqrt(SEEDS)
    different = 2 * special.stdtr(SEEDS - 1, -np.abs(mean) / error) < 0.05
    if margin is None:
        return float(different.mean()), 0.0
    return float(different.mean()), float((special.stdtr(SEEDS - 1, -(margin - np.abs(mean)) / error) < 0.05).mean())


def main() -> None:
    """Print a table in Markdown for no margin and for one of two standard deviations."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for margin in (None, 2.0):
        print(f"\nmargin: {'none' if margin is None else f'{margin:g} standard deviations'}\n")
        print(
            "| true difference | 10 seeds find it | verdict finds it | 10 seeds: equivalent | verdict: equivalent "
            "| futile | undecided | trainings | saved |"
        )
        print("|" + " --- |" * 9)
        for effect in EFFECTS:
            (different, equivalent), (ends, trainings) = fixed(effect, margin), sequential(effect, margin, studies)
            found = ends.get("different", 0.0) + ends.get("wrong sign", 0.0)
            shares = [
                different,
                found,
                equivalent,
                *(ends.get(end, 0.0) for end in ("equivalent", "futile", "undecided")),
            ]
            cells = [f"{effect:g}", *(f"{value:.3f}" for value in shares)]
            print(f"| {' | '.join([*cells, f'{trainings:.1f}', f'{1 - trainings / (2 * SEEDS):.0%}'])} |", flush=True)


if __name__ == "__main__":
    main()
