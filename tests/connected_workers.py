"""Workers that are connected with each other within one process."""

import socket
from unittest.mock import patch

from fcnlab.core import workers
from fcnlab.core.workers import ConnectedWorkers


def connect(count, silence=20.0):
    """Return as many workers; `end` has to be called for each."""
    pairs = {rank: socket.socketpair() for rank in range(1, count)}
    with patch.object(workers.atexit, "register"):
        first = ConnectedWorkers(0, count, {rank: pair[0] for rank, pair in pairs.items()}, silence)
        return [first, *(ConnectedWorkers(rank, count, {0: pair[1]}, silence) for rank, pair in pairs.items())]


def end(worker):
    """Close the connections of a worker, as the end of its process does."""
    worker._closed.set()
    for link in worker._links.values():
        link.close()
