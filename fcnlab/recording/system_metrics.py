"""How busy the machine is while it trains, under the names by which MLflow shows it in a tab of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from fcnlab.core.errors import FcnlabError

log = logging.getLogger(__name__)

MEGABYTE = 1e6  # as MLflow counts


class SystemMetrics:
    """Reads processor, memory and disk at regular intervals, in a thread of its own, from `start` to `stop`.

    The processor's load is the mean since the reading before: of all cores together for the system (0 to 100), of one
    core for this process, so that four busy threads are 400.

    A reading that cannot be taken or recorded is lost, and the first of a row is logged: it must not end a training of
    days, and whoever records it finds out in the training itself when the disk is full.

    Args:
        every: Seconds between two readings.
        record: Called in the thread with the number of the reading, from ``first``, and the values by name.
        folder: The disk that holds it is watched.
        first: Number of the first reading, where there were some before.
    """

    def __init__(
        self,
        every: float,
        record: Callable[[int, dict[str, float]], None],
        folder: Path | str = ".",
        first: int = 0,
    ) -> None:
        self._every = every
        self._record = record
        self._folder = str(folder)
        self._first = first
        self._process = psutil.Process()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fcnlab-system-metrics", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Begin; once only."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last reading and end; nothing is recorded afterwards. Again, or before `start`, it does nothing."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        # A load is since the call before in the same thread, so that the first one means nothing.
        psutil.cpu_percent()
        self._process.cpu_percent()
        number, last = self._first, False
        while not last:
            last = self._stopping.wait(self._every)
            self._sample(number)
            number += 1

    def _sample(self, number: int) -> None:
        try:
            self._record(number, self._read())
        except Exception as error:
            if not self._failing:
                expected = isinstance(error, (FcnlabError, OSError, psutil.Error))
                log.warning("system metrics are lost: %s", error, exc_info=None if expected else error)
            self._failing = True
        else:
            self._failing = False

    def _read(self) -> dict[str, float]:
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(self._folder)
        return {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system/system_memory_usage_percentage": 100 * memory.used / memory.total,
            "system/disk_usage_percentage": disk.percent,
            "system/disk_usage_megabytes": disk.used / MEGABYTE,
            "system/disk_available_megabytes": disk.free / MEGABYTE,
            "system/process_cpu_percentage": self._process.cpu_percent(),
            "system/process_memory_megabytes": self._process.memory_info().rss / MEGABYTE,
        }
