"""A sweep while it runs, in the process that the user started: its parent run, and its result."""

from __future__ import annotations

import logging
import re
import shlex
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, read_write
from rich import get_console
from rich.markup import escape
from rich.table import Table

from fcnlab.comparison.trials import Trial, read_folder
from fcnlab.config import Config, TrackingConfig, check_tracking, one_line, override
from fcnlab.core import interrupts
from fcnlab.core.credentials import redact
from fcnlab.core.errors import TrackingError
from fcnlab.core.progress import clock
from fcnlab.metrics import names
from fcnlab.recording import journal, provenance
from fcnlab.recording.journal import Journal
from fcnlab.recording.tags import BEST_TAG, REASON_TAG, ROLE_TAG, SWEEP_TAG
from fcnlab.sweeps import outcome as outcomes
from fcnlab.sweeps.manifest import SweepRecord
from fcnlab.sweeps.outcome import Outcome
from fcnlab.sweeps.trial import is_alone

log = logging.getLogger(__name__)

current: Sweep | None = None
"""The sweep of this process, if it is one that a user started with ``-m``."""

NO_WORD = "its job ended without a word, so see what the launcher said"
"""Why a trial failed whose job is gone."""

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_FOR_TRIALS_TO_END = 12.0


class Sweep:
    """Keeps the parent run from before the first trial until after the last one.

    Args:
        record: What identifies it.
    """

    def __init__(self, record: SweepRecord) -> None:
        self.record = record
        self.folder: Path | None = None
        self.run_id: str | None = None
        self._journal: Journal | None = None
        self._upload: Any = None
        self._planned: list[list[str]] = []
        self._valued: set[int] = set()
        self._counts: dict[str, float] = {}
        self._looking = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, config: DictConfig) -> None:
        """Open the parent run, or the one that is gone on with.

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
        self.axes = axes_of(config.hydra.overrides.task, config.hydra.sweeper.get("params"))
        self._planned = planned(self.axes, config.hydra.sweeper)
        with read_write(config.hydra):  # from which Hydra composes every job; one may be computed in another directory
            config.hydra.overrides.hydra.append(override("hydra.sweep.dir", self.folder))
        try:
            self._journal = Journal(self.folder, exist_ok=True)
        except TrackingError as error:
            raise TrackingError(
                str(error).replace("another training is running in it", "its sweep is running")
            ) from None
        begun = next(journal.read(self.folder / journal.FILE), None) is not None
        told = journal.history(self.folder / journal.FILE)
        self._valued = {step for step, _ in told.get(self.monitor, ())}
        self._counts = {name: points[-1][1] for name, points in told.items() if name.startswith("sweep/")}
        try:
            self.record.write(self.folder)
            outcomes.allow_to_run(self.folder)
        except OSError as error:
            raise journal.cannot_write(self.folder, error) from error
        if begun:
            self._settle_running(interrupted=True)  # of a sweep that was killed with its jobs
            self._journal.append("resume", step=0)
        else:
            self._write_beginning(tracking)
        if tracking.name == "mlflow":
            from fcnlab.tracking.callback import MLflowCallback

            self._upload = MLflowCallback(Config(tracking=tracking), self.folder, what="sweep")
            self._upload.on_start(None)
            self.run_id = self._upload.run_id
        log.info("sweep %s in %s", self.record.id, config.hydra.sweep.dir)
        if not is_alone(config.hydra):  # whose launcher may kill its processes with everything below them
            interrupts.on_first_signal(self._end_trials)
        self._thread = threading.Thread(target=self._look, name="fcnlab-sweep", daemon=True)
        self._thread.start()

    def end(self, error: BaseException | None = None) -> list[Outcome]:
        """Write the result into the parent run and on the terminal.

        Args:
            error: What ended the sweep before its last trial, if anything did.

        Returns:
            How each trial ended, also of those that never began, if the sweeper is one whose trials are known.
        """
        if self._journal is None:
            return []
        interrupts.on_first_signal(None)
        self._looking.set()
        if self._thread is not None:
            self._thread.join()
        interrupted = isinstance(error, KeyboardInterrupt)
        if error is not None:
            self._end_trials()
        self._settle_running(interrupted)
        found = outcomes.read_all(self.folder)
        self._tell(found)
        begun = {outcome.number for outcome in found}
        found += [
            Outcome(number, words, status="missing")
            for number, words in enumerate(self._planned)
            if number not in begun
        ]
        found.sort(key=lambda outcome: outcome.number)
        bad = [outcome for outcome in found if outcome.status not in ("finished", "pruned")]
        status = "killed" if interrupted else "failed" if bad or error else "finished"
        try:
            if error is not None and not interrupted:
                self._journal.append("tags", values={REASON_TAG: redact(one_line(error))})
            self._write_result(found, status)
            self._journal.append("end", status=status)
            self._journal.flush()
        except (TrackingError, OSError) as error:
            log.warning("%s", error)
        finally:
            self._journal.close()
        if self._upload is not None:
            self._upload.on_end(status)
        _show(found, self.monitor, self.axes)
        say = partial(get_console().print, markup=False, highlight=False, soft_wrap=True)
        say(f"The sweep is {status}. To compare: python -m fcnlab.compare sweep={shlex.quote(self._name())}")
        if status != "finished":
            say(f"To run what is missing: python -m fcnlab.train sweep.resume={shlex.quote(self._name())}")
        return found

    def _name(self) -> str:
        folder = self.folder
        return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)

    def _write_beginning(self, tracking: TrackingConfig) -> None:
        from fcnlab.recording.tags import FOLDER_TAG

        axes = {name: redact(",".join(values)) for name, values in self.axes.items()}
        self._journal.append(
            "run",
            journal=self.record.id,  # by which a trial finds its parent in the store
            experiment=tracking.experiment,
            name=tracking.run_name or f"sweep over {', '.join(axes) or 'one training'}",
            tags={
                SWEEP_TAG: self.record.id,
                ROLE_TAG: "sweep",
                FOLDER_TAG: str(self.folder),
                "command": redact(self._command())[: provenance.MAX_TAG_LENGTH],
                "mlflow.source.name": "fcnlab.train",
            },
            params=axes,
        )
        self._journal.append("tags", values={"mlflow.note.content": self._note([], "running")})

    def _look(self) -> None:
        """Tell the parent run how far its trials are, wherever they run."""
        while not self._looking.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                self._tell(outcomes.read_all(self.folder))
            except (TrackingError, OSError) as error:
                log.debug("%s", error)

    def _tell(self, found: Sequence[Outcome]) -> None:
        for outcome in found:  # the history of the search: the value of each trial over its number
            if outcome.value is not None and outcome.number not in self._valued:
                values = {names.recorded(self.monitor): outcome.value}
                self._journal.append("metrics", step=outcome.number, values=values)
                self._valued.add(outcome.number)
        by_status = Counter(outcome.status for outcome in found)
        counts = {f"sweep/{status}": float(by_status[status]) for status in ("finished", "pruned", "failed", "killed")}
        if any(counts.values()) and counts != self._counts:
            self._journal.append("metrics", step=int(sum(counts.values())), values=counts)
            self._counts = counts

    def _end_trials(self) -> None:
        """Also those that other processes started: each saves its state before it ends."""
        with suppress(OSError):  # of a full disk; they end once nobody waits for them
            outcomes.ask_to_end(self.folder)
        deadline = time.monotonic() + _SECONDS_FOR_TRIALS_TO_END
        while time.monotonic() < deadline:
            if not any(outcome.status == "running" for outcome in outcomes.read_all(self.folder)):
                break
            time.sleep(0.1)

    def _settle_running(self, interrupted: bool) -> None:
        """Say how those ended whose job did not live to say it."""
        for outcome in outcomes.read_all(self.folder):
            if outcome.status == "running":
                outcome.status = "killed" if interrupted else "failed"
                outcome.reason = None if interrupted else NO_WORD
                outcome.write(self.folder)

    def _write_result(self, found: Sequence[Outcome], status: str) -> None:
        trials = read_trials(found)
        tags = {"mlflow.note.content": self._note(found, status)}
        best = self._best(found)
        if best is not None and best.run_id:
            tags[BEST_TAG] = best.run_id
        if any(trial.metrics for trial in trials):
            from fcnlab.comparison import compare, markdown, write_report

            comparison = compare(trials, self.monitor)
            write_report(comparison, self.folder / "comparison")
            self._journal.append("artifact", path="comparison", to="comparison")
            tags["mlflow.note.content"] = f"{tags['mlflow.note.content']}\n\n{markdown(comparison, short=True)}"[:7900]
        self._journal.append("tags", values=tags)

    def _best(self, found: Sequence[Outcome]) -> Outcome | None:
        valued = [outcome for outcome in found if outcome.status == "finished" and outcome.value is not None]
        pick = max if names.higher_is_better(self.monitor) else min
        return pick(valued, key=lambda outcome: outcome.value, default=None)

    def _note(self, found: Sequence[Outcome], status: str) -> str:
        lines = [f"**Sweep** over {', '.join(f'`{name}`' for name in self.axes) or 'one training'}: {status}"]
        counts = Counter(outcome.status for outcome in found)
        if counts:
            lines.append(", ".join(f"{count} {name}" for name, count in counts.items()))
        lines += [f"- trial {outcome.number} {outcome.status}: {outcome.reason}" for outcome in found if outcome.reason]
        lines.append(f"```\n{redact(self._command())}\n```")
        return "\n\n".join(lines)

    def _command(self) -> str:
        return shlex.join(["python", "-m", "fcnlab.train", "-m", *self.record.words])


def axes_of(words: Sequence[str], params: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """What a sweep sweeps: keys to their values, or to the range that a search draws from."""
    words = [*(f"{key}={value}" for key, value in (params or {}).items()), *words]
    axes: dict[str, list[str]] = {}
    for word in words:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            continue
        if override.is_sweep_override():
            if override.is_discrete_sweep():
                axes[override.get_key_element()] = [str(value) for value in override.sweep_string_iterator()]
            else:
                axes[override.get_key_element()] = [word.partition("=")[2]]
        else:
            axes.pop(override.get_key_element(), None)
    return axes


def planned(axes: Mapping[str, Sequence[str]], sweeper: Mapping[str, Any]) -> list[list[str]]:
    """What sets each trial apart, by number; of a search it is not known yet, of another package's sweeper nothing is.

    Args:
        axes: From `axes_of`.
        sweeper: Its configuration.
    """
    if str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        words = [[f"{key}={value}" for value in values] for key, values in axes.items()]
        return [list(trial) for trial in product(*words)]
    count = sweeper.get("n_trials")
    return [[] for _ in range(count)] if isinstance(count, int) else []


def read_trials(found: Sequence[Outcome]) -> list[Trial]:
    """The trainings of a sweep's trials, without those that left nothing."""
    trials = []
    for outcome in found:
        if outcome.status == "missing":
            continue
        try:
            trials.append(read_folder(Path(outcome.folder)))
        except TrackingError as error:
            log.debug("%s", error)
    return trials


def _show(found: Sequence[Outcome], monitor: str, axes: Mapping[str, Any]) -> None:
    table = Table(title="Trials", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("what")
    table.add_column("status")
    table.add_column(escape(monitor.removeprefix("val/")), justify="right")
    table.add_column("time", justify="right")
    for outcome in found:
        swept = [word for word in outcome.overrides if word.lstrip("+~").partition("=")[0] in axes]
        what = re.sub(r"\d+\.\d{7,}", lambda number: f"{float(number[0]):.6g}", " ".join(swept))
        value = "" if outcome.value is None else f"{outcome.value:.4f}"
        time = clock(outcome.seconds) if outcome.seconds else ""
        table.add_row(*map(escape, [str(outcome.number), what, outcome.status, value, time]))
    get_console().print(table)
    for outcome in found:
        if outcome.reason is not None:
            line = f"- trial {outcome.number} {outcome.status}: {outcome.reason}"
            get_console().print(line, markup=False, highlight=False, soft_wrap=True)
