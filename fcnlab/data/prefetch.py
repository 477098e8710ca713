"""Work done ahead in background threads, handed over in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Iterator[Result]:
    """Yield ``function(item)`` for every item, in order, computed in threads at most ``ahead`` results early.

    No thread starts before the first result is asked for. None is left once the generator ends, is closed or is
    dropped: what has not begun is cancelled, what has begun is waited for.

    Args:
        function: Called in a background thread; time spent in OpenCV and numpy runs truly in parallel.
        items: Read in the consumer's thread.
        workers: Number of threads, at least 1.
        ahead: Results that may be under way or waiting beside the one being consumed; raised to ``workers``.

    Raises:
        Exception: Whatever ``function`` raised, at that item's turn.
    """
    ahead = max(ahead, workers)
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fcnlab-data")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
