"""``hydra/sweeper=stages``: each stage starts from what the one before it has reached.

Hydra takes plug-ins only from the package ``hydra_plugins``, which includes this folder after a call of
`fcnlab.sweeps.sweepers.register`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fcnlab.core.errors import ConfigError
from fcnlab.sweeps import result as results
from fcnlab.sweeps import stages as staging
from fcnlab.sweeps.result import TrialResult
from fcnlab.sweeps.trial_sweeper import TrialSweeper

log = logging.getLogger(__name__)


class Stages(TrialSweeper):
    """Trains one stage after the other; a launcher may run the trials of a stage side by side.

    ``sweep.resume`` runs through all stages again, in which finished trials are not repeated.

    Args:
        stages: For each stage the keys, with their values, that set it apart.
        start_from: Which weights the next stage starts from: ``best`` or ``last``.
        params: Further keys with their values, in Hydra's language.
    """

    def __init__(
        self, stages: Sequence[Mapping[str, Any]], start_from: str, params: Mapping[str, Any] | None = None
    ) -> None:
        self.settings = {"stages": stages, "start_from": start_from, "params": params}

    def sweep(self, arguments: list[str]) -> None:
        """Run all trials whose chain has not broken off.

        Raises:
            ConfigError: If a stage does not compose; no trial has begun then.
        """
        plan = staging.read(self.settings, arguments)
        stages, chains = range(len(plan.words)), range(len(plan.chains))
        for stage in stages:
            for chain in chains:
                self._check(plan.overrides(stage, chain))
        folder = Path(self.config.hydra.sweep.dir)
        for stage in stages:
            jobs = {plan.number(stage, chain): self._job(plan, folder, stage, chain) for chain in chains}
            # A launcher numbers its jobs in a row, so those between two that cannot run are launched together.
            for can_run, numbers in groupby(jobs, key=lambda number: jobs[number] is not None):
                if not can_run:
                    continue
                row = list(numbers)
                self._launch([jobs[number] for number in row], row[0])

    def _job(self, plan: staging.Stages, folder: Path, stage: int, chain: int) -> list[str] | None:
        """Return the overrides of a trial; None, and a result that says why, if it cannot run."""
        overrides = plan.overrides(stage, chain)
        if stage == 0:
            return overrides
        try:
            before = results.read(folder, plan.number(stage - 1, chain))
            return [*overrides, *plan.start(stage, chain, before)]
        except ConfigError as error:
            number = plan.number(stage, chain)
            log.error("trial %d is not run: it %s", number, error)
            missing = TrialResult(number, plan.planned()[number], status="missing", reason=f"it {error}")
            missing.write(folder)
            return None
