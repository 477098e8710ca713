"""The system metrics agree with MLflow's own, and a reading that fails is only lost."""

import threading
import time

import numpy as np
import pytest

from fcnlab.core.errors import TrackingError
from fcnlab.recording.system_metrics import SystemMetrics


class Log:
    """Keeps what is recorded, and can wait for it."""

    def __init__(self):
        self.samples = []
        self.arrived = threading.Condition()

    def __call__(self, number, values):
        with self.arrived:
            self.samples.append((number, values))
            self.arrived.notify_all()

    def wait_for(self, count):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.samples) >= count, timeout=1800)


def test_a_short_run_has_one_reading():
    log = Log()
    metrics = SystemMetrics(1000, log)
    metrics.start()
    began = time.monotonic()
    metrics.stop()
    metrics.stop()
    assert time.monotonic() - began < 60
    assert [number for number, _ in log.samples] == [0]


def test_readings_come_regularly_and_end_with_stop():
    log = Log()
    metrics = SystemMetrics(0.02, log)
    metrics.start()
    log.wait_for(4)
    metrics.stop()
    count = len(log.samples)
    assert [number for number, _ in log.samples] == list(range(count))
    time.sleep(0.1)
    assert len(log.samples) == count


def test_stop_without_start_does_nothing():
    log = Log()
    SystemMetrics(1, log).stop()
    assert not log.samples


def test_the_values_are_mlflows(tmp_path):
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor

    log = Log()
    metrics = SystemMetrics(1000, log, folder="/")
    metrics.start()
    metrics.stop()
    values = log.samples[0][1]
    expected = {}
    for monitor in (CPUMonitor(), DiskMonitor()):
        monitor.collect_metrics()
        expected |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
    own = {"system/process_cpu_percentage", "system/process_memory_megabytes"}
    assert values.keys() == expected.keys() | own
    for name in expected.keys() - {"system/cpu_utilization_percentage"}:
        assert values[name] == pytest.approx(expected[name], rel=0.1), name


def test_the_process_own_share():
    log = Log()
    clocks = []

    def record(number, values):
        clocks.append((time.monotonic(), time.process_time()))
        log(number, values)

    metrics = SystemMetrics(0.1, record)
    metrics.start()
    log.wait_for(1)
    ballast = np.ones(25_000_000)  # 200 MB
    ended = time.process_time() + 0.4
    while time.process_time() < ended:
        pass
    metrics.stop()
    values = [values for _, values in log.samples]
    memory = [value["system/process_memory_megabytes"] for value in values]
    assert memory[-1] - memory[0] == pytest.approx(ballast.nbytes / 1e6, abs=50)
    seconds = np.diff([clock for clock, _ in clocks])
    busy = np.array([value["system/process_cpu_percentage"] for value in values[1:]]) / 100
    assert seconds @ busy == pytest.approx(clocks[-1][1] - clocks[0][1], rel=0.25)
    system = [value["system/cpu_utilization_percentage"] for value in values]
    assert 0 < max(system) <= 100


@pytest.mark.parametrize(("error", "traceback"), [(TrackingError("disk full"), False), (KeyError("a bug"), True)])
def test_a_failure_is_logged_once_a_row_and_the_next_reading_is_tried(caplog, error, traceback):
    log = Log()

    def record(number, values):
        log(number, values)
        if number in (1, 2, 4):
            raise error

    metrics = SystemMetrics(0.02, record)
    metrics.start()
    log.wait_for(6)
    metrics.stop()
    assert len(log.samples) >= 6
    records = [entry for entry in caplog.records if entry.name == "fcnlab.recording.system_metrics"]
    assert [entry.levelname for entry in records] == ["WARNING"] * 2
    assert str(error) in records[0].getMessage()
    assert bool(records[0].exc_info) == traceback


def test_a_folder_that_is_gone_costs_readings_only(tmp_path, caplog):
    log = Log()
    (tmp_path / "run").mkdir()
    metrics = SystemMetrics(0.02, log, folder=tmp_path / "run")
    metrics.start()
    log.wait_for(1)
    (tmp_path / "run").rmdir()
    ended = time.monotonic() + 60
    while not caplog.records and time.monotonic() < ended:
        time.sleep(0.01)
    assert "run" in caplog.text
    (tmp_path / "run").mkdir()
    log.wait_for(len(log.samples) + 2)
    metrics.stop()
