"""Where the network runs: the one place that picks the device and prepares the machine for it."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Collection, MutableMapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fcnlab.errors import ConfigError

log = logging.getLogger(__name__)

_ISA = "ONEDNN_MAX_CPU_ISA"
_notices: list[str] = []


def needs_cap(mindspore_version: str, machine: str, cpu_flags: Collection[str]) -> bool:
    """Whether oneDNN would pick its reference convolution, about 90 times slower.

    MindSpore 2.9 and newer bundle oneDNN 3, which does so on an x86 CPU with AVX-512.
    """
    major, minor = (int(part) for part in mindspore_version.split(".")[:2])
    return (major, minor) >= (2, 9) and machine in ("x86_64", "AMD64") and "avx512f" in cpu_flags


def quiet_mindspore(environment: MutableMapping[str, str] = os.environ) -> None:
    """Show MindSpore's errors, not its warnings, which speak to its developers; ``GLOG_v=2`` brings them back."""
    environment.setdefault("GLOG_v", "3")


def cap_onednn(environment: MutableMapping[str, str] = os.environ) -> None:
    """Cap oneDNN's instruction set at AVX2 where that is faster, unless the user has set it.

    oneDNN reads the variable when it loads, so this must run before MindSpore is imported. `configure` tells the user.
    """
    try:
        installed = version("mindspore")
    except PackageNotFoundError:
        return
    if _ISA in environment or "mindspore" in sys.modules or not needs_cap(installed, platform.machine(), _cpu_flags()):
        return
    environment[_ISA] = "AVX2"
    _notices.append(f"MindSpore {installed} on AVX-512: set {_ISA}=AVX2, without which convolutions are far slower")


def configure(device: str = "auto", mode: str = "graph") -> str:
    """Select the device and the execution mode for this process.

    Args:
        device: "cpu", "ascend", or "auto": Ascend where there is one, else the CPU.
        mode: "graph" (compiled) or "pynative" (operator by operator).

    Returns:
        MindSpore's name of the device, "CPU" or "Ascend".

    Raises:
        ConfigError: If Ascend is asked for and there is none.
    """
    import mindspore as ms

    while _notices:
        log.info(_notices.pop())
    available = _has_ascend()
    if device == "ascend" and not available:
        raise ConfigError("trainer.device=ascend: no Ascend device is visible here; use trainer.device=cpu")
    target = "Ascend" if available and device != "cpu" else "CPU"
    # Not ms.set_device: it logs an error on some versions.
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE, device_target=target)
    return target


def describe_cpu() -> str:
    """The processor's name and core count, as a run records it."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _has_ascend() -> bool:
    """Device nodes first: asking MindSpore on a machine without any prints a page of warnings."""
    if not any(Path("/dev").glob("davinci[0-9]*")):
        return False
    import mindspore as ms

    return bool(ms.hal.is_available("Ascend"))


def _cpu_flags() -> Collection[str]:
    return next((set(line.split()) for line in _cpuinfo() if line.startswith("flags")), set())


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
