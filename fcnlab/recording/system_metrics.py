"""Measures the load of the machine during a training, under the names that MLflow's tab for system metrics expects."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from fcnlab.core.errors import FcnlabError

log = logging.getLogger(__name__)

MEGABYTE = 1e6  # bytes, as MLflow counts


class SystemMetrics:
    """Reads the load of processor, memory and disk at regular intervals, in a thread, from `start` to `stop`.

    The load of the processor is the mean since the previous reading. The system's is a share of all cores (0 to 100);
    that of this process is a share of one core, so that four busy threads make 400.

    A reading that fails does not end the training: it is lost, and the first failure in a row is logged.

    Args:
        every: Seconds between two readings.
        record: Is called in the thread with the number of the reading and the values by name.
        folder: A folder on the disk that is measured.
        first: The number of the first reading, which is above 0 where a training is resumed.
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
        """Start the thread. Call this only once."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last reading and stop. Another call, or a call before `start`, does nothing."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        # Each call measures since the previous one in this thread, so the first result means nothing.
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
