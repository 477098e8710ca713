"""A sweep while it runs, in the process that the user started: it keeps the parent run."""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, read_write
from rich import get_console

from fcnlab.config import Config, TrackingConfig, check_tracking, one_line, override
from fcnlab.core import interrupts
from fcnlab.core.credentials import redact
from fcnlab.core.errors import TrackingError
from fcnlab.core.files import shortest
from fcnlab.metrics import names
from fcnlab.recording import journal, provenance
from fcnlab.recording.journal import Journal
from fcnlab.recording.tags import BEST_TAG, FOLDER_TAG, REASON_TAG, ROLE_TAG, SWEEP_TAG, VERDICT_TAG
from fcnlab.sweeps import result as results
from fcnlab.sweeps import stages, stop_request, summary, verdict
from fcnlab.sweeps.axes import axes_of, planned
from fcnlab.sweeps.launcher import is_sequential
from fcnlab.sweeps.manifest import SweepManifest
from fcnlab.sweeps.result import TrialResult

if TYPE_CHECKING:
    from fcnlab.tracking.callback import MLflowCallback

log = logging.getLogger(__name__)

current: Sweep | None = None
"""The sweep of this process, if a user started it with ``-m``."""

JOB_LOST = "its job ended without writing a result: see what the launcher printed"
"""Why a trial failed whose job is gone."""

_NOTE_TAG = "mlflow.note.content"
_MAX_NOTE_LENGTH = 7900
_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_FOR_TRIALS_TO_STOP = 12.0


class Sweep:
    """Keeps the parent run from before the first trial until after the last one.

    Args:
        manifest: The identity of the sweep.
    """

    def __init__(self, manifest: SweepManifest) -> None:
        self.manifest = manifest
        self.folder: Path | None = None
        self._journal: Journal | None = None
        self._mlflow: MLflowCallback | None = None
        self._planned: list[list[str]] = []
        self._recorded: set[int] = set()
        self._looked: set[int] = set()
        self._counts: dict[str, float] = {}
        self._over = threading.Event()
        self._follower: threading.Thread | None = None

    def begin(self, config: DictConfig) -> None:
        """Open the parent run, or resume it.

        Args:
            config: What Hydra composed for the sweep, without what is swept.

        Raises:
            ConfigError: If the tracking store is given with a password.
            TrackingError: If another process runs this sweep, or the store cannot be reached.
        """
        self.folder = Path(config.hydra.sweep.dir).resolve()
        tracking: TrackingConfig = OmegaConf.to_object(config.tracking)
        check_tracking(tracking)
        self.monitor = config.trainer.monitor
        if stages.is_staged(config.hydra.sweeper):
            plan = stages.read(config.hydra.sweeper, config.hydra.overrides.task)
            self.axes, self._planned = dict(plan.axes), plan.planned()
        else:
            self.axes = axes_of(config.hydra.overrides.task, config.hydra.sweeper.get("params"))
            self._planned = planned(self.axes, config.hydra.sweeper)
        if verdict.is_verdict(config.hydra.sweeper):
            verdict.read(config.hydra.sweeper, config.hydra.overrides.task, config.seed)  # refuses what is no pair
            verdict.design(config.hydra.sweeper)
            self.axes["seed"] = []
        with read_write(config.hydra):  # from which Hydra composes every job, perhaps in another directory
            config.hydra.overrides.hydra.append(override("hydra.sweep.dir", self.folder))
        self._open_journal(tracking)
        if tracking.name == "mlflow":
            from fcnlab.tracking.callback import MLflowCallback

            self._mlflow = MLflowCallback(Config(tracking=tracking), self.folder, what="sweep")
            self._mlflow.on_start(None)
        log.info("sweep %s in %s", self.manifest.id, config.hydra.sweep.dir)
        if not is_sequential(config.hydra):  # a parallel one may kill its workers with all processes below them
            interrupts.on_first_signal(self._stop_trials)
        self._follower = threading.Thread(target=self._follow, name="fcnlab-sweep", daemon=True)
        self._follower.start()

    def end(self, error: BaseException | None = None) -> list[TrialResult]:
        """Write the result into the parent run, and show it on the terminal.

        Args:
            error: What ended the sweep before its last trial, if anything did.

        Returns:
            The result of each trial, also of those that never began if the sweeper's trials are known.
        """
        if self._journal is None:
            return []
        interrupts.on_first_signal(None)
        self._over.set()
        if self._follower is not None:
            self._follower.join()
        interrupted = isinstance(error, KeyboardInterrupt)
        if error is not None:
            self._stop_trials()
        self._settle_running(interrupted)
        found = results.read_all(self.folder)
        self._record_progress(found)
        begun = {result.number for result in found}
        missing = [number for number in range(len(self._planned)) if number not in begun]
        found += [TrialResult(number, self._planned[number], status="missing") for number in missing]
        found.sort(key=lambda result: result.number)
        succeeded = error is None and all(result.succeeded for result in found)
        status = "killed" if interrupted else "finished" if succeeded else "failed"
        conclusion = None
        try:
            if error is not None and not interrupted:
                self._journal.append("tags", values={REASON_TAG: redact(one_line(error))})
            conclusion = self._record_result(found, status)
            self._journal.append("end", status=status)
            self._journal.flush()
        except (TrackingError, OSError) as error:
            log.warning("%s", error)
        finally:
            self._journal.close()
        if self._mlflow is not None:
            self._mlflow.on_end(status)
        summary.show(found, self.monitor, self.axes)
        name = shlex.quote(shortest(self.folder))
        say = partial(get_console().print, markup=False, highlight=False, soft_wrap=True)
        if (study := verdict.read_study(self.folder)) is not None:
            say(study.sentence)
        elif conclusion is not None:
            say(conclusion)
        say(f"The sweep is {status}. To compare: python -m fcnlab.compare sweep={name}")
        if status != "finished":
            say(f"To run what is missing: python -m fcnlab.train sweep.resume={name}")
        return found

    def _open_journal(self, tracking: TrackingConfig) -> None:
        try:
            self._journal = Journal(self.folder, exist_ok=True)
        except TrackingError as error:
            raise TrackingError(
                str(error).replace("another training is running in it", "its sweep is running")
            ) from None
        begun = next(journal.read(self.folder / journal.FILE), None) is not None
        history = journal.history(self.folder / journal.FILE)
        self._recorded = {number for number, _ in history.get(self.monitor, ())}
        self._looked = {number for number, _ in history.get("verdict/difference", ())}
        self._counts = {name: points[-1][1] for name, points in history.items() if name.startswith("sweep/")}
        try:
            self.manifest.write(self.folder)
            stop_request.withdraw(self.folder)
        except OSError as error:
            raise journal.cannot_write(self.folder, error) from error
        if begun:
            self._settle_running(interrupted=True)  # the sweep was killed with its jobs
            self._journal.append("resume", step=0)
        else:
            self._record_beginning(tracking)

    def _record_beginning(self, tracking: TrackingConfig) -> None:
        axes = {name: redact(",".join(values)) for name, values in self.axes.items()}
        self._journal.append(
            "run",
            journal=self.manifest.id,  # by which a trial finds its parent in the store
            experiment=tracking.experiment,
            name=tracking.run_name or f"sweep over {', '.join(axes) or 'one training'}",
            tags={
                SWEEP_TAG: self.manifest.id,
                ROLE_TAG: "sweep",
                FOLDER_TAG: str(self.folder),
                "command": self._command()[: provenance.MAX_TAG_LENGTH],
                "mlflow.source.name": "fcnlab.train",
            },
            params=axes,
        )
        self._journal.append("tags", values={_NOTE_TAG: summary.note([], self.axes, "running", self._command())})

    def _follow(self) -> None:
        """Record the progress of the trials, wherever they run."""
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                self._record_progress(results.read_all(self.folder))
            except (TrackingError, OSError) as error:
                log.debug("%s", error)

    def _record_progress(self, found: Sequence[TrialResult]) -> None:
        for result in found:  # each trial's value over its number is the history of a search
            if result.value is not None and result.number not in self._recorded:
                values = {names.recorded(self.monitor): result.value}
                self._journal.append("metrics", step=result.number, values=values)
                self._recorded.add(result.number)
        by_status = Counter(result.status for result in found)
        self._record_study()
        counts = {f"sweep/{status}": float(by_status[status]) for status in ("finished", "pruned", "failed", "killed")}
        if any(counts.values()) and counts != self._counts:
            self._journal.append("metrics", step=int(sum(counts.values())), values=counts)
            self._counts = counts

    def _record_study(self) -> None:
        """Record the difference after each pair of a study that stops by itself, with its interval, over the pairs."""
        study = verdict.read_study(self.folder)
        for look in study.looks if study is not None else ():
            if look.pairs in self._looked:
                continue
            measured = {"difference": look.mean, "low": look.low, "high": look.high}
            values = {f"verdict/{name}": value for name, value in measured.items() if math.isfinite(value)}
            self._journal.append("metrics", step=look.pairs, values=values)
            self._looked.add(look.pairs)

    def _stop_trials(self) -> None:
        """Stop the trials, also those that other processes started; each saves its state before it ends."""
        with suppress(OSError):  # the disk is full: a trial then ends once nobody waits for it
            stop_request.make(self.folder)
        deadline = time.monotonic() + _SECONDS_FOR_TRIALS_TO_STOP
        while time.monotonic() < deadline:
            if not any(result.status == "running" for result in results.read_all(self.folder)):
                break
            time.sleep(0.1)

    def _settle_running(self, interrupted: bool) -> None:
        """Write the results of the trials whose job did not live to write them."""
        for result in results.read_all(self.folder):
            if result.status == "running":
                result.status = "killed" if interrupted else "failed"
                result.reason = None if interrupted else JOB_LOST
                result.write(self.folder)

    def _record_result(self, found: Sequence[TrialResult], status: str) -> str | None:
        """Write the table and the note into the parent run, and return the table's conclusion, if there is a table."""
        trainings, conclusion = results.read_trainings(found), None
        note = summary.note(found, self.axes, status, self._command())
        best = self._best(found)
        tags = {BEST_TAG: best.run_id} if best is not None and best.run_id else {}
        study = verdict.read_study(self.folder)
        if study is not None:
            looks = "The table knows of no looks; the decision does."
            note, tags[VERDICT_TAG] = f"{study.sentence} {looks}\n\n{note}", study.word
            self._journal.append("artifact", path=verdict.FILE, to=None)
        if any(training.metrics for training in trainings):
            from fcnlab.comparison import compare, markdown, write_report

            comparison = compare(trainings, self.monitor, margin=None if study is None else study.margin)
            write_report(comparison, self.folder / "comparison")
            self._journal.append("artifact", path="comparison", to="comparison")
            note = f"{note}\n\n{markdown(comparison, short=True)}"[:_MAX_NOTE_LENGTH]
            conclusion = comparison.conclusion
        self._journal.append("tags", values={_NOTE_TAG: note, **tags})
        return conclusion

    def _best(self, found: Sequence[TrialResult]) -> TrialResult | None:
        finished = [result for result in found if result.status == "finished" and result.value is not None]
        pick = max if names.higher_is_better(self.monitor) else min
        return pick(finished, key=lambda result: result.value, default=None)

    def _command(self) -> str:
        return redact(shlex.join(["python", "-m", "fcnlab.train", "-m", *self.manifest.overrides]))
