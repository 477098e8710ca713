"""What MindSpore's launcher, ``msrun``, says of the process that it started."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

_ROLES = {"MS_WORKER": "worker", "MS_SCHED": "scheduler"}


class Launch(NamedTuple):
    """How ``msrun`` started this process.

    Attributes:
        role: ``"worker"``, or ``"scheduler"`` for the process through which the workers find each other.
        rank: The number of the worker, from 0; None if ``msrun`` leaves it to be settled later, as it does on several
            hosts without ``--node_rank``.
        workers: The number of workers on all hosts.
        workers_here: The number of workers among which the processors of this process are divided.
        is_joined: Whether ``msrun`` waits for its workers (``--join=True``), so that its end is theirs.
        launcher: The process of ``msrun``.
    """

    role: str
    rank: int | None
    workers: int
    workers_here: int
    is_joined: bool
    launcher: int


def read(environment: Mapping[str, str], command_line: Sequence[str], launcher: int) -> Launch | None:
    """Read what ``msrun`` has set for a process.

    Args:
        environment: The environment of the process.
        command_line: The words with which ``msrun`` was started; empty if it has ended.
        launcher: The process of ``msrun``.

    Returns:
        None if ``msrun`` did not start the process.
    """
    role = _ROLES.get(environment.get("MS_ROLE", ""))
    if role is None:
        return None
    workers = _number(environment.get("MS_WORKER_NUM")) or 1
    options = _options(command_line)
    here = 1 if options.bind_core.lower() != "false" else _number(options.local_worker_num) or workers
    rank = _number(environment.get("MS_NODE_ID"))
    return Launch(role, rank, workers, here, options.join.lower() == "true", launcher)


@cache
def current() -> Launch | None:
    """Return how ``msrun`` started this process; None if it did not."""
    if os.environ.get("MS_ROLE") not in _ROLES:
        return None
    launcher = os.getppid()
    try:
        words = Path(f"/proc/{launcher}/cmdline").read_bytes()  # `msrun` exists on Linux alone
    except OSError:  # it has ended, as it does without --join=True
        words = b""
    return read(os.environ, [os.fsdecode(word) for word in words.split(b"\0")[:-1]], launcher)


def workers_here() -> int:
    """Return how many processes of one training divide the processors of this process among them."""
    launch = current()
    return 1 if launch is None else launch.workers_here


def _options(command_line: Sequence[str]) -> argparse.Namespace:
    """Return the options of ``msrun`` that say how its workers live, as it reads them."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for name, default in (("join", "False"), ("local_worker_num", ""), ("bind_core", "False")):
        parser.add_argument(f"--{name}", default=default)
    try:
        return parser.parse_known_args(list(command_line))[0]
    except argparse.ArgumentError:
        return parser.parse_args([])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
