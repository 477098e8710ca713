"""What a Hydra launcher says of how its trials share a machine."""

from __future__ import annotations

import os

from omegaconf import DictConfig, OmegaConf

from fcnlab.config import Config
from fcnlab.core.processor import usable_processors


def is_sequential(hydra_config: DictConfig) -> bool:
    """Return whether the trials run one after the other, in the process that the user started."""
    return str(hydra_config.launcher.get("_target_", "")).endswith("BasicLauncher")


def threads(config: Config, hydra_config: DictConfig) -> int | None:
    """Return how many threads each process of a trial computes with; None if a trial may use all cores.

    The workers of a trial, ``trainer.workers``, have equal shares of what the trial has.
    """
    given = _threads_of_trial(config, hydra_config)
    return None if given is None else max(given // (config.trainer.workers or 1), 1)


def _threads_of_trial(config: Config, hydra_config: DictConfig) -> int | None:
    launcher = hydra_config.launcher
    if config.sweep.threads is not None:
        return config.sweep.threads
    if "OMP_NUM_THREADS" in os.environ:
        return None  # the user has decided
    if (given := launcher.get("cpus_per_task")) is not None:  # submitit
        return int(given)
    if (given := OmegaConf.select(launcher, "ray.remote.num_cpus")) is not None:
        return max(int(given), 1)
    jobs = launcher.get("n_jobs")  # joblib, which counts a negative number from all cores
    if jobs is None:
        return None
    cores = usable_processors()
    jobs = jobs if jobs > 0 else max(cores + 1 + jobs, 1)
    return max(cores // jobs, 1)
