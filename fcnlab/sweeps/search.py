"""The study of a search, which Optuna keeps in a file of the sweep's folder.

Hydra's own plug-in for Optuna needs a release before 3.0, which cannot keep its study in a database beside the
SQLAlchemy that MLflow needs, and it cannot prune trials. So this package has a plug-in of its own, in ``plugins``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fcnlab.training.callbacks import Callback

if TYPE_CHECKING:
    import optuna

    from fcnlab.training.callbacks import EvaluationEvent

log = logging.getLogger(__name__)

FILE = "search.journal"
"""The name of the study's file in the sweep's folder."""
_NAME = "sweep"
_PRUNER = "pruner"


class Reporter(Callback):
    """Reports to a study what a trial reaches, and ends the training if the study prunes the trial.

    Args:
        sweep: The sweep's folder.
        number: The number of the trial in the study.
        monitor: The metric that is reported.
    """

    def __init__(self, sweep: Path, number: int, monitor: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = open_study(sweep)
        frozen = study.get_trials(deepcopy=False)[number]
        self._reported = set(frozen.intermediate_values)
        self._trial = optuna.trial.Trial(study, frozen._trial_id)
        self._monitor = monitor

    def on_evaluation(self, record: EvaluationEvent) -> None:
        value = record.evaluation.metrics.get(self._monitor, math.nan)
        if record.epoch not in self._reported and not math.isnan(value):  # it is repeated after an interruption
            self._trial.report(value, record.epoch)
        if self._trial.should_prune():
            message = "pruned at epoch %d: a %s of %.4f is not as good as the median of the other trials there"
            log.info(message, record.epoch, self._monitor, value)
            self.wants_to_stop = True


def open_study(folder: Path, pruner: Mapping[str, int] | None = None, direction: str | None = None) -> optuna.Study:
    """Open the study of a sweep.

    Args:
        folder: The sweep's folder.
        pruner: The arguments of the median pruner; None: no trial is pruned. It counts only with ``direction``.
        direction: "maximize" or "minimize", with which a study is made if there is none; None: the study must exist.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / FILE)))
    if direction is None:
        study = optuna.load_study(study_name=_NAME, storage=storage)
    else:
        study = optuna.create_study(study_name=_NAME, storage=storage, direction=direction, load_if_exists=True)
        study.set_user_attr(_PRUNER, dict(pruner) if pruner is not None else None)
    settings = study.user_attrs.get(_PRUNER)
    study.pruner = optuna.pruners.MedianPruner(**settings) if settings is not None else optuna.pruners.NopPruner()
    return study
