"""Describes this machine's processor, and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Collection
from pathlib import Path

from fcnlab.core.cgroups import processor_quota
from fcnlab.core.launch import workers_here


def usable_processors() -> int:
    """Return how many threads of this process can run at a time, at least 1.

    It is the number of processors that the process may run on, or fewer where a container limits its processor time. A
    part of a processor counts as a whole one. The workers of one training on this machine have equal shares of them.
    """
    processors, quota = _processors(), processor_quota()
    usable = processors if quota is None else max(1, min(processors, math.ceil(quota)))
    return max(1, usable // workers_here())


def processor_time_is_limited() -> bool:
    """Return whether a container gives this process less time than the processors that it may run on have."""
    quota = processor_quota()
    return quota is not None and quota < _processors()


def thread_limit() -> int | None:
    """Return the number of threads for packages that would count processors, or None where that count is right."""
    usable = usable_processors()
    return usable if usable < _processors() else None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_flags() -> Collection[str]:
    """Return the processor's instruction sets, as Linux names them; empty on other systems."""
    names = ("flags", "Features")  # the second is what AArch64 calls them
    return next((set(line.split()) for line in _cpuinfo() if line.startswith(names)), set())


def describe_cpu() -> str:
    """Return the processor's name and number of cores, as a run records them."""
    values = dict(reversed([_pair(line) for line in _cpuinfo()]))  # those of the first core
    name = values.get("model name")
    if name is None and "CPU part" in values:  # AArch64 gives its designer and model as numbers
        name = f"{platform.machine()} {values.get('CPU implementer', '')} {values['CPU part']}"
    return f"{name or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
