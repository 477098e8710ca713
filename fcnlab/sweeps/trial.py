"""The job of a trial: it starts the training in a process of its own, and says how that ended."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnlab import config as configuration
from fcnlab.comparison.trials import read_folder
from fcnlab.config import Config
from fcnlab.core import interrupts
from fcnlab.core.errors import ConfigError, FcnlabError, TrackingError, first_line
from fcnlab.experiment import primary_config, resume
from fcnlab.recording import journal
from fcnlab.recording.tags import REASON_TAG, SWEEP_TAG, TRIAL_TAG
from fcnlab.sweeps import manifest
from fcnlab.sweeps import outcome as outcomes
from fcnlab.sweeps.outcome import Outcome
from fcnlab.tracking.annotation import annotate, record_failure

log = logging.getLogger(__name__)

RESULT = ".trial.json"
"""What the process of a trial leaves in the trial's folder for its job."""

COMMAND = (sys.executable, "-m", "fcnlab.sweeps.process")

_OWN = ("sweep.", "hydra.", "hydra/")
_SECONDS_TO_END = 30.0
_SECONDS_FOR_THE_LAUNCHER = 15.0
_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Task:
    """What the process of a trial is told.

    Attributes:
        config: What to train.
        folder: The output folder.
        overrides: What Hydra was told to change.
        words: The command line of the sweep, for the record.
        logging: For ``logging.config``.
        alone: Whether no other trial writes to the terminal meanwhile.
        number: Of the trial.
        sweep: The sweep's folder.
    """

    config: Config
    folder: Path
    overrides: list[str]
    words: list[str]
    logging: dict[str, Any]
    alone: bool
    number: int
    sweep: Path


def run(node: DictConfig) -> float:
    """Run one trial of a sweep; what a Hydra launcher calls, in whichever process and on whichever machine.

    Returns:
        The best value of ``trainer.monitor``; NaN if the trial failed, which is no reason for the others not to run.

    Raises:
        KeyboardInterrupt: If the sweep is to end.
    """
    interrupts.unblock()
    hydra_config = HydraConfig.get()
    os.chdir(hydra_config.runtime.cwd)  # a worker of a cluster is where that was started, and paths are the user's
    sweep = Path(hydra_config.sweep.dir).resolve()
    try:
        if outcomes.is_to_end(sweep):
            raise KeyboardInterrupt
        return _run(node, hydra_config, sweep)
    except KeyboardInterrupt:
        if outcomes.is_to_end(sweep):  # its launcher is about to be interrupted, and is not to see a failed job before
            time.sleep(_SECONDS_FOR_THE_LAUNCHER)
        raise


def _run(node: DictConfig, hydra_config: DictConfig, sweep: Path) -> float:
    folder = Path(hydra_config.runtime.output_dir)
    overrides = [word for word in hydra_config.overrides.task if not word.lstrip("+").startswith(_OWN)]
    outcome = Outcome(int(hydra_config.job.num), overrides, str(folder.resolve()))
    began = time.monotonic()
    try:
        node.sweep.id = hydra_config.job.env_set.get(manifest.ID_VARIABLE)
        config = configuration.from_node(node)
        primary_config.check(config, hydra_config.job.config_name)
        config, folder = _gone_on_with(config, folder, sweep)
        outcome.folder = str(folder.resolve())
        if config is None:
            return _already_finished(outcome)
        outcome.write(sweep)
        task = Task(
            config,
            folder,
            list(hydra_config.overrides.task),
            ["-m", *(begun.words if (begun := manifest.read(sweep)) else overrides)],
            OmegaConf.to_container(hydra_config.job_logging, resolve=True),
            is_alone(hydra_config),
            outcome.number,
            sweep,
        )
        _train(task, outcome, threads(config, hydra_config))
    except FcnlabError as error:
        outcome.status, outcome.reason = "failed", str(error)
    except OSError as error:  # no disk to write to, or no memory to start a process in
        outcome.status, outcome.reason = "failed", f"{error.filename or 'its job'}: {error.strerror or error}"
    except (KeyboardInterrupt, SystemExit):  # the latter is how Ray ends a worker
        outcome.status = "killed"
        raise
    finally:
        outcome.seconds = outcome.seconds or time.monotonic() - began
        if outcome.reason is not None:
            log.error("trial %d %s: %s", outcome.number, outcome.status, outcome.reason)
            _record_failure(node, outcome)
        outcome.write(sweep)
    return math.nan if outcome.value is None or outcome.reason is not None else outcome.value


def threads(config: Config, hydra_config: DictConfig) -> int | None:
    """How many threads a trial computes with; None if all cores are its own."""
    launcher = hydra_config.launcher
    if config.sweep.threads is not None:
        return config.sweep.threads
    if "OMP_NUM_THREADS" in os.environ:
        return None  # the user's word
    if (given := launcher.get("cpus_per_task")) is not None:  # submitit
        return int(given)
    if (given := OmegaConf.select(launcher, "ray.remote.num_cpus")) is not None:
        return max(int(given), 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = launcher.get("n_jobs")  # joblib; negative ones count from all cores, as there
    if jobs is None:
        return None
    jobs = jobs if jobs > 0 else max(cores + 1 + jobs, 1)
    return max(cores // jobs, 1)


def is_alone(hydra_config: DictConfig) -> bool:
    """Whether the trials run one after the other, in the process that the user started."""
    return str(hydra_config.launcher.get("_target_", "")).endswith("BasicLauncher")


def _gone_on_with(config: Config, folder: Path, sweep: Path) -> tuple[Config | None, Path]:
    """What is left of a trial, and where: nothing of one that is finished."""
    if not (config.sweep.skip_finished or config.resume == primary_config.AUTO):
        return config, folder
    if not _is_of(config, folder):
        # By the configuration, not by the number: a sweep over more values counts differently.
        found = resume.newest_training(config, sorted({str(sweep), "multirun"}), finished=True)
        if found is None and (folder / journal.FILE).is_file() and not journal.is_being_written(folder):
            raise ConfigError(
                f"{folder}: holds another training; choose another hydra.sweep.dir, or let each have a folder of its "
                "own: hydra.sweep.subdir='${hydra.job.override_dirname}'"
            )
        folder = found or folder
    if not (folder / journal.FILE).is_file():
        return replace(config, resume=None), folder
    if journal.is_finished(folder):
        return None, folder
    return replace(config, resume=primary_config.AUTO), folder


def _is_of(config: Config, folder: Path) -> bool:
    return (folder / journal.FILE).is_file() and resume.is_of(config, folder) and not journal.is_being_written(folder)


def _already_finished(outcome: Outcome) -> float:
    trial = read_folder(Path(outcome.folder))
    outcome.status = "pruned" if trial.pruned else "finished"
    outcome.value = trial.value if math.isfinite(trial.value) else None
    outcome.run_id, outcome.seconds = trial.run_id or None, trial.seconds
    log.info("trial %d, %s: is finished already", outcome.number, " ".join(outcome.overrides))
    return math.nan if outcome.value is None else outcome.value


def _train(task: Task, outcome: Outcome, count: int | None) -> None:
    """Train in a process of its own, and wait for it."""
    task.folder.mkdir(parents=True, exist_ok=True)
    result = task.folder / RESULT
    result.unlink(missing_ok=True)
    environment = dict(os.environ)
    if count is not None:
        environment |= {"OMP_NUM_THREADS": str(count), "FCNLAB_NUM_THREADS": str(count)}
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches it through here, once
    )
    try:
        message = pickle.dumps(task)
        process.stdin.write(len(message).to_bytes(8, "little") + message)
        process.stdin.flush()  # and left open: its end tells the process that nobody waits for it any more
        while (code := process.poll()) is None:
            if outcomes.is_to_end(task.sweep):
                raise KeyboardInterrupt
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # not `wait`, within which a signal is not seen
    except KeyboardInterrupt as interrupt:
        _end(process, interrupt)
        raise
    except BrokenPipeError:
        code = process.wait()
    finally:
        process.stdin.close()
    said = _read_result(result)
    outcome.value, outcome.run_id = said.get("value"), said.get("run_id")
    if code == 0:
        outcome.status = "pruned" if said.get("pruned") else "finished"
        _forget_failure(task)
    elif code in (128 + signal.SIGINT, 128 + signal.SIGTERM):  # this trial alone: it has saved its state
        outcome.status, outcome.reason = "killed", f"was told to end ({signal.Signals(code - 128).name})"
    else:
        raise FcnlabError(said.get("reason") or _why(code))


def _end(process: subprocess.Popen, interrupt: KeyboardInterrupt) -> None:
    """Let the training save its state; a second Ctrl-C closes the pipe with this process, and ends it at once."""
    process.send_signal(signal.SIGTERM if isinstance(interrupt, interrupts.Terminated) else signal.SIGINT)
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()


def _read_result(path: Path) -> Mapping[str, Any]:
    """What the process of a trial left; empty if it did not get there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _why(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "its process was killed (SIGKILL), as the system does when memory runs out: lower trainer.batch_size, "
            "dataset.crop_size or arch.width, or run fewer trials at once"
        )
    if code < 0:
        return f"its process ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}: see its log"


def _record_failure(node: DictConfig, outcome: Outcome) -> None:
    """Say in the trial's run why it failed; one that never began gets a run that says so."""
    if _holds_another(node, Path(outcome.folder)):
        return
    try:
        tracking = OmegaConf.to_object(node.tracking)
        params = {key: str(value) for key, value in configuration.flatten(OmegaConf.to_container(node)).items()}
        tags = {SWEEP_TAG: params["sweep.id"], TRIAL_TAG: str(outcome.number), REASON_TAG: outcome.reason}
        name = f"{params.get('arch.name')}-{params.get('dataset.name')}-seed{params.get('seed')}"
        run_id = record_failure(Path(outcome.folder), tracking, name, params, tags)
        outcome.run_id = run_id or outcome.run_id
    except (FcnlabError, OSError, OmegaConfBaseException) as error:
        log.warning("trial %d: its failure is not recorded in its run (%s)", outcome.number, first_line(error))


def _holds_another(node: DictConfig, folder: Path) -> bool:
    """Whether a folder's journal is of a training that this trial has nothing to say about."""
    if not (folder / journal.FILE).is_file():
        return False
    try:
        return journal.is_finished(folder) or not resume.is_of(configuration.from_node(node), folder)
    except FcnlabError:
        return True


def _forget_failure(task: Task) -> None:
    """Of an attempt before this one."""
    try:
        if read_folder(task.folder).reason:
            annotate(task.folder, task.config.tracking, {REASON_TAG: ""})
    except TrackingError as error:
        log.warning("%s", error)
