"""Ends a command with its exit code and, for what a user can mend, one line on standard error."""

from __future__ import annotations

import signal
import sys
import time
from typing import NoReturn

from fcnlab.core import interrupts, launch, memory, workers

EXIT_ERROR = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT

_SECONDS_FOR_FIRST = 5.0
"""How long another worker leaves worker 0 to say why neither can begin, before `msrun` ends that one."""

OUT_OF_MEMORY = (
    "out of memory: free some and go on with resume=..., or lower trainer.batch_size, dataset.crop_size or arch.width "
    "in a new training"
)
_OUT_OF_MEMORY_ELSEWHERE = "out of memory: lower tile"


def leave_if_out_of_memory(error: BaseException, trains: bool = True) -> None:
    """Exit with one line if an error says that memory has run out; otherwise, nothing happens.

    Args:
        error: An error of any library.
        trains: Whether the command trains.
    """
    if not memory.has_run_out(error):
        return
    left = memory.address_space_left()
    limit = "" if left is None else f" (ulimit -v leaves {max(left, 0) / 2**20:.0f} MiB)"
    leave(EXIT_ERROR, (OUT_OF_MEMORY if trains else _OUT_OF_MEMORY_ELSEWHERE).replace(":", f"{limit}:", 1))


def leave(code: int, reason: str) -> NoReturn:
    """Print the reason as one line on standard error, and exit.

    Of several workers, the first one speaks: the others have the same reason, or have reported theirs to it.
    """
    started = launch.current()
    if started is None or not started.rank:  # a rank that is not known may be any, and then all say it
        print(f"fcnlab: {reason}", file=sys.stderr)
    elif code == EXIT_ERROR and workers.current() is workers.ALONE:  # they have not met, so that neither knows more
        interrupts.take_no_more()
        time.sleep(_SECONDS_FOR_FIRST)
    workers.current().ends_with(code)
    sys.exit(code)
