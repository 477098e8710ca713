"""``hydra/sweeper=search``: Optuna proposes what to try next.

Hydra takes plug-ins only from the package ``hydra_plugins``, which includes this folder after a call of
`fcnlab.sweeps.sweepers.register`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fcnlab.core.errors import ConfigError
from fcnlab.metrics.names import higher_is_better
from fcnlab.sweeps import result as results
from fcnlab.sweeps.search import open_study

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from fcnlab.sweeps.result import TrialResult


class Search(Sweeper):
    """Proposes trials by what the earlier ones reached.

    A trial of the study has the number of its job. ``sweep.resume`` runs an interrupted trial again with the same
    values, and the next proposal depends only on the seed and the trials before it.

    Args:
        n_trials: The number of trials in all.
        n_jobs: The number of trials at once.
        sampler: "tpe" or "random".
        startup_trials: The number of random trials at the beginning.
        pruner: "median" or "none".
        warmup_epochs: The number of epochs before a trial may be pruned.
        seed: The seed of the sampler.
        params: Keys with their ranges or values, in Hydra's language.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        sampler: str,
        startup_trials: int,
        pruner: str,
        warmup_epochs: int,
        seed: int,
        params: Mapping[str, Any] | None,
    ) -> None:
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.sampler = sampler
        self.startup_trials = startup_trials
        self.pruner = pruner
        self.warmup_epochs = warmup_epochs
        self.seed = seed
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are ``n_trials``.

        Raises:
            ConfigError: If Optuna is not installed, nothing is to be searched, or a setting is unknown.
        """
        self._check()
        overrides = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        space, fixed = _split(OverridesParser.create().parse_overrides(overrides))
        if not space:
            raise ConfigError(
                "hydra/sweeper=search: nothing to search; give a range, as in "
                "'optimizer.lr=tag(log,interval(1e-4,1e-1))', or several values"
            )
        folder = Path(self.config.hydra.sweep.dir)
        direction = "maximize" if higher_is_better(self.config.trainer.monitor) else "minimize"
        study = open_study(folder, self._pruner(), direction)
        left = [trial.number for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]
        while left or len(study.trials) < self.n_trials:
            if left:
                batch = [left.pop(0)]  # one by one, since a launcher takes only numbers in a row
            else:
                wanted = min(self.n_jobs, self.n_trials - len(study.trials))
                batch = [self._propose(study, space) for _ in range(wanted)]
            trials = study.get_trials(deepcopy=False)
            jobs = [[*fixed, *_overrides(trials[number], space), f"sweep.search_trial={number}"] for number in batch]
            for number, job in zip(batch, self.launcher.launch(jobs, initial_job_idx=batch[0]), strict=True):
                _ = job.return_value  # raises what ended the job, if anything did
                _tell(study, number, results.read(folder, number))

    def _check(self) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            raise ConfigError("hydra/sweeper=search: needs Optuna: pip install 'fcnlab[search]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for key, known in (("sampler", ("tpe", "random")), ("pruner", ("median", "none"))):
            if getattr(self, key) not in known:
                raise ConfigError(f"hydra.sweeper.{key}={getattr(self, key)}: choose one of {', '.join(known)}")
        for key, least in (("n_trials", 1), ("n_jobs", 1), ("startup_trials", 1), ("warmup_epochs", 0), ("seed", 0)):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < least:
                raise ConfigError(f"hydra.sweeper.{key}={getattr(self, key)}: must be a whole number, at least {least}")

    def _pruner(self) -> dict[str, int] | None:
        if self.pruner == "none":
            return None
        return {"n_startup_trials": self.startup_trials, "n_warmup_steps": self.warmup_epochs}

    def _propose(self, study: optuna.Study, space: Mapping[str, Any]) -> int:
        """Ask for one more trial, and return its number."""
        import optuna

        seed = self.seed + len(study.trials)  # so that a resumed study proposes the same
        if self.sampler == "tpe":
            study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=self.startup_trials, constant_liar=self.n_jobs > 1
            )
        else:
            study.sampler = optuna.samplers.RandomSampler(seed=seed)
        return study.ask(dict(space)).number


def _split(overrides: Sequence[Override]) -> tuple[dict[str, Any], list[str]]:
    """Return what is searched, as Optuna's distributions, and the overrides that are the same for every trial."""
    space: dict[str, Any] = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            space.pop(key, None)
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
            continue
        fixed.pop(key, None)
        space[key] = _distribution(override)
    return space, list(fixed.values())


def _distribution(override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if override.is_interval_sweep():
        logarithmic = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int) and "int" in value.tags:
            return IntDistribution(value.start, value.end, log=logarithmic)
        return FloatDistribution(float(value.start), float(value.end), log=logarithmic)
    return CategoricalDistribution([str(choice) for choice in override.sweep_string_iterator()])


def _overrides(trial: FrozenTrial, space: Mapping[str, Any]) -> list[str]:
    return [f"{key}={trial.params[key]}" for key in space]


def _tell(study: optuna.Study, number: int, result: TrialResult | None) -> None:
    from optuna.trial import TrialState

    if result is None or not result.succeeded or result.value is None:
        study.tell(number, state=TrialState.FAIL)
    elif result.status == "pruned":
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, result.value)
