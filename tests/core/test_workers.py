"""Workers tell each other what they have to, and notice when one of them is gone."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from connected_workers import end
from hypothesis import given
from hypothesis import strategies as st

from fcnlab.core import interrupts, workers
from fcnlab.core.errors import ConfigError, TrainingError
from fcnlab.core.launch import Launch
from fcnlab.core.workers import ALONE, WorkerLostError, Workers


def together(group, function):
    """Call a function with each worker at once, and return the results, or the errors, in their order."""
    with ThreadPoolExecutor(len(group)) as pool:
        futures = [pool.submit(function, worker) for worker in group]
        return [future.exception(30) or future.result() for future in futures]


@given(total=st.integers(0, 300), count=st.integers(1, 64))
def test_the_shares_are_all_things_and_no_thing_twice(total, count):
    shares = []
    for rank in range(count):
        one = Workers()
        one.rank, one.count = rank, count
        shares.append(one.share(total))
    assert [index for share in shares for index in share] == list(range(total))
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


def test_one_worker_alone_hears_itself():
    array = np.arange(3)
    assert ALONE.exchange("a", array) == [("a", (array,))]
    assert ALONE.of_first(5) == 5
    assert ALONE.share(7) == range(7)


@pytest.mark.parametrize("count", [2, 5])
def test_every_worker_hears_all_of_them_to_the_bit(connected, count):
    counts = np.array([[2**53 + 1, 0], [7, -1]])

    def tell(worker):
        first = worker.exchange({"rank": worker.rank}, counts + worker.rank, np.float32([0.1, np.nan]))
        return first, worker.exchange("again"), worker.of_first(worker.rank + 10)

    for first, again, of_first in together(connected(count), tell):
        assert [message.content["rank"] for message in first] == list(range(count))
        for rank, message in enumerate(first):
            np.testing.assert_array_equal(message.arrays[0], counts + rank)
            assert message.arrays[0].dtype == np.int64
            np.testing.assert_array_equal(message.arrays[1], np.float32([0.1, np.nan]))
        assert [message.content for message in again] == ["again"] * count
        assert of_first == 10


@pytest.mark.parametrize("gone", [0, 2])
def test_the_others_notice_at_once_that_a_worker_has_ended(connected, gone):
    group = connected(3)
    end(group[gone])
    left = [worker for worker in group if worker is not group[gone]]

    def tell(worker):
        try:
            return worker.exchange()
        finally:
            end(worker)  # as the end of its process does

    began = time.monotonic()
    for error in together(left, tell):
        assert isinstance(error, WorkerLostError)
    assert time.monotonic() - began < 15  # the silence that is allowed is 20 s


def test_a_silent_worker_is_given_up_and_a_late_one_is_not(connected, monkeypatch):
    first, late = connected(2, silence=1.0)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: (time.sleep(3), late.exchange("late"))[1])
        assert first.exchange()[1].content == "late"
        answer.result(30)
    late._closed.set()  # it shows no sign of life any more, but its connection stays open
    with pytest.raises(WorkerLostError, match=r"worker 1 of 2 has been silent"):
        first.exchange()


def test_worker_0_gets_the_error_of_another_one(connected, monkeypatch):
    monkeypatch.setattr(interrupts, "_taken", interrupts.threading.Event())
    group = connected(2)
    group[1].report(ConfigError("dataset.root=x: is not there"))
    with pytest.raises(TrainingError, match=r"^worker 1: dataset.root=x: is not there$"):
        group[0].exchange()


def test_a_worker_with_an_error_ends_after_worker_0(connected):
    group = connected(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(group[1].outlast_first, ConfigError("trainer.batch_size=1"))
        group[0]._send(1, b"what worker 0 still tells")
        time.sleep(0.2)
        assert not waiting.done()
        end(group[0])
        waiting.result(timeout=1800)


def test_nobody_waits_for_itself_for_the_dead_or_for_ever(connected, monkeypatch):
    group = connected(2)
    group[0].outlast_first(ConfigError("trainer.batch_size=1"))
    group[1].outlast_first(WorkerLostError("worker 0 of 2 has been silent for too long"))
    monkeypatch.setattr(workers, "_SECONDS_FOR_FIRST", 0.0)
    group[1].outlast_first(ConfigError("trainer.batch_size=1"))
    ALONE.outlast_first(ConfigError("trainer.batch_size=1"))


def test_all_workers_stop_after_one_exchange(connected, monkeypatch):
    group = connected(3)
    monkeypatch.setattr(interrupts, "_pending", interrupts.Terminated())
    together(group, lambda worker: worker.exchange())
    assert all(worker.is_stopped for worker in group)
    monkeypatch.setattr(interrupts, "_taken", interrupts.threading.Event())
    with pytest.raises(interrupts.Terminated):
        group[1].stop_together()
    assert not interrupts.is_pending()
    together(group, lambda worker: worker.exchange())
    assert not any(worker.is_stopped for worker in group)
    group[1].stop_together()


@pytest.mark.parametrize(
    ("parallel", "given", "launch", "text"),
    [
        ("data", None, None, r"trainer.parallel=data: say how many workers .* trainer.workers=2"),
        ("data", 2, None, r"trainer.workers=2: python -m fcnlab.train starts workers"),
        ("none", None, Launch("worker", 0, 2, 2, True, 1), r"trainer.parallel=none: msrun has started 2 processes"),
        ("data", 3, Launch("worker", 0, 2, 2, True, 1), r"trainer.workers=3: msrun has started 2 workers"),
        ("data", None, Launch("worker", None, 2, 2, True, 1), r"give msrun --node_rank"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(parallel, given, launch, text):
    with pytest.raises(ConfigError, match=text):
        workers.check(parallel, given, launch)


def test_a_start_that_fits_is_taken():
    workers.check("none", None, None)
    workers.check("data", None, Launch("worker", 1, 2, 2, True, 1))
    workers.check("data", 2, Launch("worker", 1, 2, 2, True, 1))


def test_the_process_that_the_user_starts_is_to_start_the_workers():
    assert workers.must_start(2, None)
    assert not workers.must_start(2, Launch("worker", 1, 2, 2, True, 1))
    assert not workers.must_start(None, None)
