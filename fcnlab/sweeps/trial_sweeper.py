"""What the sweepers have in common that train trials in an order of their own."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from fcnlab import config as configuration


class TrialSweeper(Sweeper):
    """Composes trials before any is trained, and hands them to Hydra's launcher."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def _check(self, overrides: list[str]) -> None:
        """Compose a trial before any is trained, since its own turn may come days after the first.

        Raises:
            ConfigError: If it does not compose.
        """
        node = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(node):
            del node["hydra"]
        configuration.from_node(node)

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> None:
        """Train trials, and raise what ended one of them, if anything did.

        Args:
            jobs: The overrides of each trial.
            first: The number of the first one; a launcher numbers them in a row.
        """
        for job in self.launcher.launch(jobs, initial_job_idx=first):
            _ = job.return_value
