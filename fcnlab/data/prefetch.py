"""Work that background threads do ahead, handed over in order."""

from __future__ import annotations

import threading
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
    dropped: calls that have not begun are cancelled, others are waited for.

    Args:
        function: The function, which is called in a background thread; OpenCV and numpy run truly in parallel.
        items: The items, which are read in the consumer's thread.
        workers: The number of threads, at least 1.
        ahead: The number of results that may be computed or waiting beside the one that is consumed; at least
            ``workers``.

    Raises:
        Exception: Whatever ``function`` raised, at that item's turn.
    """
    ahead = max(ahead, workers)
    pending: deque[Future[Result]] = deque()
    own: set[int] = set()  # the threads
    pool = ThreadPoolExecutor(
        workers, thread_name_prefix="fcnlab-data", initializer=lambda: own.add(threading.get_ident())
    )
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # A generator that an interrupt has left behind may be collected in one of its own threads, which cannot wait
        # for itself.
        pool.shutdown(wait=threading.get_ident() not in own, cancel_futures=True)
