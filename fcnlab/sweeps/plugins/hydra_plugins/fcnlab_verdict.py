"""``hydra/sweeper=verdict``: trains pair after pair of seeds until it is known which of two networks is better.

Hydra takes plug-ins only from the package ``hydra_plugins``, which includes this folder after a call of
`fcnlab.sweeps.sweepers.register`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcnlab.sweeps import result as results
from fcnlab.sweeps import verdict
from fcnlab.sweeps.trial_sweeper import TrialSweeper
from fcnlab.sweeps.verdict import Plan, Study

log = logging.getLogger(__name__)


class Verdict(TrialSweeper):
    """Trains two networks with one seed after the other, and stops by a sequential test.

    ``sweep.resume`` runs through all pairs again, in which finished trainings are not repeated, and comes to the same
    decision.

    Args:
        margin: The largest difference of ``trainer.monitor`` that does not matter; None if every difference matters.
        max_pairs: The number of pairs at most.
        min_pairs: The number of pairs that are trained before the first look; a launcher may run them side by side.
        spending: The power of the spending function: see `fcnlab.comparison.sequential`.
        least_hope: The probability of a decision below which the study ends.
        params: Further keys with their values, in Hydra's language.
    """

    def __init__(
        self,
        margin: float | None,
        max_pairs: int,
        min_pairs: int,
        spending: float,
        least_hope: float,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = {
            **{"margin": margin, "max_pairs": max_pairs, "min_pairs": min_pairs},
            **{"spending": spending, "least_hope": least_hope, "params": params},
        }

    def sweep(self, arguments: list[str]) -> None:
        """Train pairs until the study has decided, is futile, or has as many as are allowed.

        Raises:
            ConfigError: If there are not two networks to compare, or one of them does not compose.
        """
        plan = verdict.read(self.settings, arguments, self.config.seed)
        design, margin = verdict.design(self.settings)
        for side in range(2):
            self._check(plan.overrides(0, side))
        folder = Path(self.config.hydra.sweep.dir)
        study = Study(plan.key, plan.values, self.config.trainer.monitor, margin, design.max_pairs, [], [], [], [])
        while len(study.seeds) < design.max_pairs:
            begun = len(study.seeds)
            # Before the first look nothing is decided, so that the pairs up to there are launched together.
            for pair in self._train(plan, range(begun, max(begun + 1, design.min_pairs))):
                study = self._with_pair(study, plan, pair, folder)
                if study.failed is None:
                    size = max(map(abs, (*study.first, *study.second)))
                    study.looks.append(design.look(study.differences, margin, size))
            study.write(folder)
            log.info("%s", study.sentence)
            if study.word != "running":
                return

    def _train(self, plan: Plan, pairs: range) -> range:
        jobs = [plan.overrides(pair, side) for pair in pairs for side in range(2)]
        self._launch(jobs, plan.number(pairs[0], 0))
        return pairs

    def _with_pair(self, study: Study, plan: Plan, pair: int, folder: Path) -> Study:
        """Return the study with one more pair, or with the reason why it has none.

        A pair without a value cannot be left out: it may be missing because one of the networks trains badly.
        """
        if study.failed is not None:
            return study
        found = [results.read(folder, plan.number(pair, side)) for side in range(2)]
        for side, trial in enumerate(found):
            if trial is None or not trial.succeeded or trial.value is None:
                number = plan.number(pair, side)
                what = "is missing" if trial is None else f"is {trial.status} and has no finite value"
                return Study(**{**vars(study), "failed": f"trial {number} {what}, and a pair cannot be left out"})
        study.seeds.append(plan.first_seed + pair)
        study.first.append(found[0].value)
        study.second.append(found[1].value)
        return study
