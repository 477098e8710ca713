"""Describes this machine's processor."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path


def cpu_flags() -> Collection[str]:
    """Return the processor's instruction sets, as Linux names them; empty on other systems."""
    return next((set(line.split()) for line in _cpuinfo() if line.startswith("flags")), set())


def describe_cpu() -> str:
    """Return the processor's name and number of cores, as a run records them."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
