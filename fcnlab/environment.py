"""What must be set before MindSpore loads; it reads these variables once, on import."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Collection, MutableMapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

log = logging.getLogger(__name__)

ISA = "ONEDNN_MAX_CPU_ISA"
PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"

_notices: list[str] = []


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set them, each unless the user has.

    Raises:
        ImportError: If it is too late, because another package has loaded protobuf in a way that MindSpore cannot use.
    """
    if "mindspore" in sys.modules:
        return
    environment.setdefault("GLOG_v", "3")  # errors only: MindSpore's warnings speak to its developers
    use_python_protobuf(environment)
    cap_onednn(environment)


def use_python_protobuf(environment: MutableMapping[str, str]) -> None:
    """Select protobuf's Python implementation, as MindSpore does itself: its generated code is too old for the other.

    Raises:
        ImportError: If protobuf runs another one already, as after ``import mlflow``.
    """
    environment.setdefault(PROTOBUF, "python")
    loaded = sys.modules.get("google.protobuf.internal.api_implementation")
    if loaded is not None and loaded.Type() != "python":
        raise ImportError(f"import fcnlab before mlflow, or set {PROTOBUF}=python: MindSpore 2.8 cannot load after it")


def cap_onednn(environment: MutableMapping[str, str]) -> None:
    """Cap oneDNN's instruction set at AVX2 where that is faster; `announce` tells the user."""
    try:
        installed = version("mindspore")
    except PackageNotFoundError:
        return
    if ISA not in environment and needs_cap(installed, platform.machine(), cpu_flags()):
        environment[ISA] = "AVX2"
        _notices.append(f"MindSpore {installed} on AVX-512: set {ISA}=AVX2, without which convolutions are far slower")


def needs_cap(mindspore_version: str, machine: str, flags: Collection[str]) -> bool:
    """Whether oneDNN would pick its reference convolution, about 90 times slower.

    MindSpore 2.9 and newer bundle oneDNN 3, which does so on an x86 CPU with AVX-512.
    """
    major, minor = (int(part) for part in mindspore_version.split(".")[:2])
    return (major, minor) >= (2, 9) and machine in ("x86_64", "AMD64") and "avx512f" in flags


def announce() -> None:
    """Log what `prepare` changed, once; it ran before any logging was set up."""
    while _notices:
        log.info(_notices.pop())


def cpu_flags() -> Collection[str]:
    """The processor's instruction sets, as Linux names them; empty elsewhere."""
    return next((set(line.split()) for line in _cpuinfo() if line.startswith("flags")), set())


def describe_cpu() -> str:
    """The processor's name and core count, as a run records it."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
