"""Work that background threads do ahead."""

import threading

import pytest

from fcnlab.data.prefetch import map_ahead


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    assert list(map_ahead(lambda item: 2 * item, range(50), workers=workers, ahead=5)) == list(range(0, 100, 2))


def test_it_may_be_dropped_in_one_of_its_own_threads():
    """As the collection of garbage does, which runs in any thread after an interrupt."""
    is_suspended, is_over, threads, errors = threading.Event(), threading.Event(), [], []

    def work(item):
        if item == 1:
            threads.append(threading.current_thread())
            is_suspended.wait(60)
            try:
                results.close()
            except RuntimeError as error:
                errors.append(error)
            is_over.set()
        return item

    results = map_ahead(work, range(9), workers=1, ahead=1)
    assert next(results) == 0
    is_suspended.set()
    assert is_over.wait(60)
    assert errors == []
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert list(results) == []
