"""The job of a trial: starts the training in a process of its own, waits for it, and says how it ended."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fcnlab import config as configuration
from fcnlab.comparison.trials import read_folder
from fcnlab.config import Config
from fcnlab.core import interrupts
from fcnlab.core.errors import ConfigError, FcnlabError
from fcnlab.experiment import primary_config, resume
from fcnlab.recording import journal
from fcnlab.sweeps import failure, manifest, stop_request
from fcnlab.sweeps import result as results
from fcnlab.sweeps.launcher import is_sequential, threads
from fcnlab.sweeps.result import TrialResult
from fcnlab.sweeps.task import Task

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "fcnlab.sweeps.process")

_TOLD_TO_END = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 1)))
_NOT_OF_A_TRIAL = ("sweep.", "hydra.", "hydra/")
_SECONDS_TO_STOP = 30.0
_SECONDS_FOR_THE_LAUNCHER = 15.0
_SECONDS_BETWEEN_LOOKS = 0.1


def run(node: DictConfig) -> float:
    """Run one trial of a sweep; a Hydra launcher calls this in whichever process and on whichever machine.

    Returns:
        The best value of ``trainer.monitor``, which Hydra's sweepers expect. NaN if the trial failed: that is no
        reason for the other trials not to run.

    Raises:
        KeyboardInterrupt: If the sweep is to stop.
    """
    interrupts.unblock()
    hydra_config = HydraConfig.get()
    os.chdir(hydra_config.runtime.cwd)  # a worker of a cluster runs elsewhere, and paths are relative to the user's
    sweep = Path(hydra_config.sweep.dir).resolve()
    try:
        if stop_request.is_made(sweep):
            raise KeyboardInterrupt
        result = _run(node, hydra_config, sweep)
    except KeyboardInterrupt:
        if stop_request.is_made(sweep):  # its launcher is about to be interrupted, and must not see a failed job before
            time.sleep(_SECONDS_FOR_THE_LAUNCHER)
        raise
    return result.value if result.succeeded and result.value is not None else math.nan


def _run(node: DictConfig, hydra_config: DictConfig, sweep: Path) -> TrialResult:
    folder = Path(hydra_config.runtime.output_dir)
    overrides = [word for word in hydra_config.overrides.task if not word.lstrip("+").startswith(_NOT_OF_A_TRIAL)]
    result = TrialResult(int(hydra_config.job.num), overrides, str(folder.resolve()))
    began = time.monotonic()
    try:
        begun = manifest.read(sweep)  # hydra.mode=MULTIRUN, unlike -m, starts no sweep of ours
        node.sweep.id = begun.id if begun else None
        config = configuration.from_node(
            node, [*hydra_config.overrides.hydra, *hydra_config.overrides.task], hydra_config.job.config_name
        )
        primary_config.check(config, hydra_config.job.config_name)
        config, folder = _remaining(config, folder, sweep)
        result.folder = str(folder.resolve())
        if config is None:
            _read_finished(result)
            return result
        task = Task(
            config,
            folder,
            list(hydra_config.overrides.task),
            ["-m", *(begun.overrides if begun else hydra_config.overrides.task)],
            OmegaConf.to_container(hydra_config.job_logging, resolve=True),
            is_sequential(hydra_config),
            sweep,
            result,
        )
        result = _train(task, threads(config, hydra_config))
    except FcnlabError as error:
        result.fail(str(error))
    except OSError as error:  # no disk to write to, or no memory to start a process in
        result.fail(f"{error.filename or 'its job'}: {error.strerror or error}")
    except (KeyboardInterrupt, SystemExit):  # Ray ends a worker by SystemExit
        result.status = "killed"
        raise
    finally:
        result.seconds = result.seconds or time.monotonic() - began
        if result.reason is not None:
            log.error("trial %d %s: %s", result.number, result.status, result.reason)
            failure.record(node, result)
        result.write(sweep)
    return result


def _remaining(config: Config, folder: Path, sweep: Path) -> tuple[Config | None, Path]:
    """Return what is left to train of a trial, and where; None in place of a configuration if nothing is left."""
    if not (config.sweep.skip_finished or config.resume == primary_config.AUTO):
        return config, folder
    holds_training = (folder / journal.FILE).is_file()
    is_written = holds_training and journal.is_being_written(folder)
    if not holds_training or is_written or not resume.is_of(config, folder):
        # By the configuration and not by the number, since a sweep over more values counts differently.
        found = resume.newest_training(config, sorted({str(sweep), manifest.ROOT}), finished=True)
        if found is None and holds_training and not is_written:
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


def _read_finished(result: TrialResult) -> None:
    """Complete the result of a trial that was finished before, from its output folder."""
    training = read_folder(Path(result.folder))
    result.status = "pruned" if training.pruned else "finished"
    result.value = training.value if math.isfinite(training.value) else None
    result.run_id, result.seconds = training.run_id or None, training.seconds
    log.info("trial %d, %s: is finished already", result.number, " ".join(result.overrides))


def _train(task: Task, thread_count: int | None) -> TrialResult:
    """Train in a process of its own, and return the result that it wrote or, if it could not, why."""
    task.folder.mkdir(parents=True, exist_ok=True)
    task.result.write(task.sweep)
    code = _run_process(task, thread_count)
    result = results.read(task.sweep, task.result.number) or task.result
    if result.succeeded:
        failure.forget(task)
    elif result.status == "running":
        if code in _TOLD_TO_END:  # this trial alone was stopped, and saved its state
            result.status, result.reason = "killed", f"was told to end ({signal.Signals(code - 128).name})"
        else:
            result.fail(_why(code))
    return result


def _run_process(task: Task, thread_count: int | None) -> int:
    """Run the trial's process, and return its exit code.

    Raises:
        KeyboardInterrupt: If the sweep is to stop; the process has then ended.
    """
    environment = dict(os.environ)
    if thread_count is not None:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "FCNLAB_NUM_THREADS"), str(thread_count))
    process = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches it through here, once
    )
    try:
        task.send(process.stdin)  # and leave the pipe open: its end tells the process that its job is gone
        while (code := process.poll()) is None:
            if stop_request.is_made(task.sweep):
                raise KeyboardInterrupt
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # `wait` would not notice a signal
    except KeyboardInterrupt as interrupt:
        _stop(process, interrupt)
        raise
    except BrokenPipeError:
        code = process.wait()
    finally:
        process.stdin.close()
    return code


def _stop(process: subprocess.Popen, interrupt: KeyboardInterrupt) -> None:
    """Let the training save its state; a second Ctrl-C closes the pipe with this process, and ends it at once."""
    if hasattr(signal, "pthread_sigmask"):
        process.send_signal(signal.SIGTERM if isinstance(interrupt, interrupts.Terminated) else signal.SIGINT)
    else:  # Windows sends no Ctrl-C to one process, but the end of its input tells it as much
        process.stdin.close()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()


def _why(code: int) -> str:
    """Explain in one line why a process ended that wrote no result."""
    if code == -getattr(signal, "SIGKILL", 9):
        return (
            "its process was killed (SIGKILL), as the system does when memory runs out: lower trainer.batch_size, "
            "dataset.crop_size or arch.width, or run fewer trials at once"
        )
    if code < 0:
        return f"its process ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}: see its log"
