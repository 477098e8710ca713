"""Keeps sending a journal to MLflow while it grows, in a thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcnlab.core.errors import RefusedError, TrackingError
from fcnlab.recording import journal
from fcnlab.tracking.address import run_page, store_uri
from fcnlab.tracking.journal_sender import JournalSender, RunDeletedError, previous_store
from fcnlab.tracking.store import Store

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0
_SECONDS_OF_AN_ANSWER = 1.0
"""How long the store may take to answer without being slow. Only what it takes beyond that is waiting at the end."""
_LONGEST_END = 600.0
"""The longest time that the end may take in seconds, however much there is to send, unless ``patience`` is longer."""


class JournalFollower:
    """Sends what is new in a journal, again and again until its training ends.

    While the store is away, entries wait in the journal. Only `end` waits for the store, and only for a limited time,
    whatever hangs.

    Args:
        folder: The output folder of a training or a sweep.
        uri: The store; None for the store that the journal was sent to before, or else the one of `store_uri`.
        experiment: The name of the experiment, which is created if it is missing.
        interval: Seconds between two requests.

    Raises:
        TrackingError: If the store cannot be reached, or its experiment was deleted.
    """

    def __init__(self, folder: Path, uri: str | None, experiment: str, interval: float) -> None:
        self.folder = folder
        self.interval = interval
        self.has_begun = False
        self._status = journal.MLFLOW_STATUS["killed"]
        self._wake = threading.Event()
        self._finish = threading.Event()
        self._give_up = threading.Event()
        self._away: TrackingError | None = None
        self._lacks_something = False
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="fcnlab-journal-follower", daemon=True)
        with _with_way_out():
            self._store = Store(uri or previous_store(folder) or store_uri(None))
            self._experiment = self._store.open_experiment(experiment)

    @property
    def unsent(self) -> int:
        """The number of bytes of the journal that the store does not have yet."""
        return self._sender.unsent

    def start(self) -> dict[str, str | None]:
        """Create the run, or find it, and begin to send; a store that does not answer is asked again meanwhile.

        Returns:
            What `where` returns.

        Raises:
            RefusedError: If the store refuses the run.
            TrackingError: If the journal cannot be read, or another process sends it.
        """
        try:
            self._sender = JournalSender(self.folder, self._store, self._note_answer)
        except TrackingError as error:
            self._away = error
            raise
        try:
            self._sender.open()
        except RefusedError as error:
            self._refuse(error)
            raise
        except TrackingError as error:
            if not (self.folder / journal.FILE).exists():
                self._refuse(error)
                raise
            self._mark_away(error)
        self._thread.start()
        self.has_begun = True
        return self.where()

    def where(self) -> dict[str, str | None]:
        """Return the id of the run as ``run_id``, and the command or address that shows it as ``shown``.

        The id is None as long as the store has not answered.
        """
        return {
            "run_id": self._sender.run_id,
            "shown": run_page(self._store.uri, self._experiment, self._sender.run_id),
        }

    def wake(self, interval: float | None = None) -> None:
        """Send at once what is new.

        Args:
            interval: Seconds between two requests from now on; None to keep the present interval.
        """
        self.interval = interval or self.interval
        self._wake.set()

    def end(self, status: str, patience: float, in_a_hurry: bool = False) -> str | None:
        """Send the rest of the journal, and the status if the journal does not hold it.

        Args:
            status: FINISHED, FAILED or KILLED.
            patience: Seconds to wait, in all, for a store that is away or slow. An answer within a second of the one
                before costs none of them, so that a store that is back gets everything.
            in_a_hurry: Whether to stop after these seconds even if the store answers.

        Returns:
            Why not everything is in the store; None if everything is.
        """
        self._status = status
        self._finish.set()
        self._wake.set()
        problem = self._wait_for_thread(patience, in_a_hurry)
        self._give_up.set()
        return problem

    def _wait_for_thread(self, patience: float, in_a_hurry: bool) -> str | None:
        """Wait until everything is sent, and return why it is not."""
        began = now = time.monotonic()
        waited = 0.0
        while self._thread.is_alive():
            if in_a_hurry and now - began >= patience:
                return str(self._away or "no time left")
            if waited > patience or now - began > max(_LONGEST_END, patience):
                return str(self._away or f"tracking store {self._store.shown}: takes too long to answer")
            self._thread.join(0.1)
            last, now = now, time.monotonic()
            if now - max(began, self._answered) > _SECONDS_OF_AN_ANSWER:
                waited += now - last
        return str(self._away) if self._away else None

    def _refuse(self, error: TrackingError) -> None:
        self._away = error
        self._sender.close()

    def _work(self) -> None:
        try:
            self._send_until_the_end()
        except Exception as error:  # a bug here must not end the training, nor let its end wait
            log.exception("sending the journal failed")
            self._away = TrackingError(f"sending the journal failed: {error!r}")
        finally:
            self._sender.close()

    def _send_until_the_end(self) -> None:
        pause = self.interval
        while not self._give_up.is_set():
            self._wake.clear()  # before sending: a later call of `wake` is for the next round
            finishing = self._finish.is_set()
            try:
                self._sender.open()
                self._sender.advance()
                if finishing:
                    self._sender.end(self._status)
                if self._lacks_something:
                    log.info("the tracking store has everything again")
                    self._lacks_something = False
                pause = self.interval
                if finishing:
                    return
            except RunDeletedError as error:
                log.warning("%s; the training continues and is recorded in %s", error, self.folder / journal.FILE)
                return
            except TrackingError as error:
                if not (self.folder / journal.FILE).exists():
                    self._end_without_journal()
                    return
                pause = min(pause * 2, _LONGEST_PAUSE) if self._away else 1.0
                self._mark_away(error)
            if self._finish.is_set():
                self._give_up.wait(1.0 if self._away else 0.0)
            else:
                self._wake.wait(pause)

    def _end_without_journal(self) -> None:
        """Set the status of the run: a training whose journal was deleted ends, and nothing else is left to send."""
        self._finish.wait()
        if self._sender.run_id is None:
            return
        try:
            self._sender.end(self._status)
        except TrackingError as error:
            log.warning("%s; run %s is still shown as running there", error, self._sender.run_id)

    def _mark_away(self, error: TrackingError) -> None:
        if self._away is None:
            log.warning("%s; the training continues and is recorded in %s", error, self.folder / journal.FILE)
        self._away = error
        self._lacks_something = True

    def _note_answer(self) -> None:
        self._answered = time.monotonic()
        if self._away is not None:
            log.info("the tracking store is back")
        self._away = None


@contextmanager
def _with_way_out() -> Iterator[None]:
    """Add to an error at the start what the user can do about it."""
    try:
        yield
    except RefusedError:
        raise
    except TrackingError as error:
        raise TrackingError(f"{error}; set tracking.uri=... or train without it: tracking=none") from error
