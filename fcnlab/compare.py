"""``python -m fcnlab.compare``: which of several trainings is better, and whether that is more than chance."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig
from rich import get_console
from rich.console import Console

from fcnlab import command
from fcnlab import config as configuration
from fcnlab.config import CompareConfig
from fcnlab.core.errors import ConfigError, FcnlabError, TrackingError

if TYPE_CHECKING:
    from fcnlab.comparison import Comparison
    from fcnlab.comparison.trials import Trial
    from fcnlab.tracking.store import Store

log = logging.getLogger(__name__)

PARENT = "parent"
"""The value of ``log_to`` that stands for the sweep's parent run."""

_PLAIN_WIDTH = 120  # columns of an output that is no terminal


def compare(config: CompareConfig) -> Comparison:
    """Read trainings, compare them, and show and write the comparison as the configuration says.

    Args:
        config: The result of ``fcnlab.config.compose([...], "compare")``, or a configuration built by hand.

    Raises:
        FcnlabError: For everything that the user can mend.
    """
    configuration.validate(config)
    if not any((config.sweep, config.tracking.experiment, config.filter, config.runs)):
        raise ConfigError("sweep, tracking.experiment, filter or runs: say which trainings, as in sweep=<id or folder>")
    if config.log_to == PARENT and config.sweep is None:
        raise ConfigError(f"log_to={PARENT}: is the sweep's parent run; say which with sweep=<id or folder>")
    # Not at the top: `--help` and an error in a key should not wait for MLflow.
    from fcnlab import comparison

    folder = Path(config.sweep) if config.sweep and Path(config.sweep).is_dir() else None
    local = folder is not None and not (config.filter or config.runs or config.tracking.experiment)
    store = None if local and config.log_to is None else _open_store(config.tracking.uri)
    trials = _read_sweep_folder(folder) if local else _read(store, config)
    monitor = _metric_of(config.monitor, trials) if config.monitor else _common_monitor(trials)
    found = comparison.compare(trials, monitor, config.baseline, config.margin)
    if found.best_trial is None:
        raise ConfigError(f"monitor={monitor}: none of the {len(trials)} trainings {_what_is_missing(trials, monitor)}")
    console = get_console()
    comparison.show(found, console if console.is_terminal else Console(width=_PLAIN_WIDTH))
    if config.output is not None:
        try:
            paths = comparison.write_report(found, Path(config.output).expanduser())
        except OSError as error:
            raise ConfigError(f"output={config.output}: cannot write there ({error.strerror})") from error
        log.info("written: %s", ", ".join(map(str, paths)))
    if config.log_to is not None:
        _log(found, store, config)
    return found


def _read(store: Store, config: CompareConfig) -> list[Trial]:
    from fcnlab.comparison.trials import read_trials

    sweep = config.sweep
    if sweep is not None and Path(sweep).is_dir():
        from fcnlab.sweeps import manifest

        sweep = manifest.require(Path(sweep), "sweep").id
    trials = read_trials(
        store, sweep=sweep, experiment=config.tracking.experiment, filter=config.filter, runs=config.runs or None
    )
    if not trials:
        given = {
            **{"sweep": config.sweep, "tracking.experiment": config.tracking.experiment},
            **{"filter": config.filter, "runs": config.runs},
        }
        overrides = " ".join(f"{key}={value}" for key, value in given.items() if value)
        raise ConfigError(f"{overrides}: fits no training in {store.shown}; tracking.uri=... names another store")
    return trials


def _read_sweep_folder(folder: Path) -> list[Trial]:
    from fcnlab.sweeps import manifest, result

    manifest.require(folder, "sweep")
    trials = result.read_trainings(result.read_all(folder))
    if not trials:
        raise ConfigError(f"sweep={folder}: none of its trials has begun")
    return trials


def _open_store(uri: str | None) -> Store:
    from fcnlab.tracking.store import open_existing  # not at the top: it imports MLflow

    return open_existing(uri)


def _metric_of(monitor: str, trials: Sequence[Trial]) -> str:
    """Return the metric that a user means, who may have copied its name from MLflow's pages."""
    from fcnlab.metrics import names

    return monitor if any(monitor in trial.metrics for trial in trials) else names.read(monitor)


def _common_monitor(trials: Sequence[Trial]) -> str:
    """Return the metric by which most trainings chose their best evaluation."""
    return Counter(trial.monitor for trial in trials).most_common(1)[0][0]


def _what_is_missing(trials: Sequence[Trial], monitor: str) -> str:
    """Say why no training counts for a metric, as the second half of a sentence."""
    if not any(trial.complete for trial in trials):
        return "has it: none of them ran to its end"
    known = sorted({name for trial in trials if trial.complete for name in trial.metrics})
    if monitor in known:
        return "has a finite value of it"
    return f"has it: they have {', '.join(known)}" if known else "has it: none of them was ever evaluated"


def _log(found: Comparison, store: Store, config: CompareConfig) -> None:
    from fcnlab import comparison
    from fcnlab.recording import journal

    run_id = config.log_to
    if run_id == PARENT:
        folder = Path(config.sweep)
        if folder.is_dir():
            run_id = journal.sent_to(folder)
            if run_id is None:
                raise TrackingError(f"sweep={folder}: is in no store yet; send it with `fcnlab.track sync {folder}`")
        else:
            run_id = store.parent_of_sweep(config.sweep)
            if run_id is None:
                raise TrackingError(f"sweep={config.sweep}: has no parent run in {store.shown}")
    with tempfile.TemporaryDirectory() as temporary:
        comparison.write_report(found, Path(temporary, "comparison"))
        store.log_artifact(run_id, Path(temporary, "comparison"), "comparison")
    log.info("added to run %s", run_id)


@hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="compare")
def _command(node: DictConfig) -> None:
    try:
        compare(configuration.from_node(node))
    except FcnlabError as error:
        command.leave(command.EXIT_ERROR, str(error))


if __name__ == "__main__":
    command.run(_command, CompareConfig)
