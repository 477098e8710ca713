"""What must be set before MindSpore and OpenCV load; they read these variables once, on import."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, MutableMapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

log = logging.getLogger(__name__)

ISA = "ONEDNN_MAX_CPU_ISA"
PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"

MAX_PIXELS = 2**27
"""Of the largest image that `fcnlab.data` decodes; OpenCV reads its own limit once, too."""

_notices: list[str] = []


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set them, each unless the user has; after ``import mlflow``, load MindSpore at once."""
    if "OMP_NUM_THREADS" in environment:  # MindSpore overwrites it with 1; `fcnlab.kernels` reads this instead
        environment.setdefault("FCNLAB_NUM_THREADS", environment["OMP_NUM_THREADS"])
    environment.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    # MLflow asks when it moves a file; its bar for each would stand between the lines of a training.
    environment.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    provide_home(environment)
    if "mindspore" in sys.modules:
        return
    environment.setdefault("GLOG_v", "3")  # errors only: MindSpore's warnings speak to its developers
    cap_onednn(environment)
    use_python_protobuf(environment)


def provide_home(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give a process without a home folder one that goes with it, as where a container's user has no name.

    MLflow asks for one on import, and `fcnlab.core.cache_folder` keeps libraries in it that are loaded, so nobody else
    may be able to put one there. The processes that this one starts share it.
    """
    try:
        Path.home()
    except RuntimeError:
        folder = tempfile.mkdtemp(prefix="fcnlab-home-")
        environment["HOME"] = folder
        atexit.register(_remove, folder, os.getpid())
        if not environment.get("XDG_CACHE_HOME"):
            _notices.append(
                "there is no home folder, so what is compiled goes when this process ends; XDG_CACHE_HOME=<folder> "
                "keeps it"
            )


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and no process that was forked off
        shutil.rmtree(folder, ignore_errors=True)


def use_python_protobuf(environment: MutableMapping[str, str]) -> None:
    """Let MindSpore have protobuf's Python implementation: its generated code is too old for the others.

    Whatever loaded another one before, such as MLflow, keeps that. MindSpore is then imported here, with a copy of
    protobuf that nothing else sees.
    """
    loaded = sys.modules.get("google.protobuf.internal.api_implementation")
    if loaded is None or loaded.Type() == "python":
        environment.setdefault(PROTOBUF, "python")
    else:
        with _second_protobuf(environment):
            import_module("mindspore")


@contextmanager
def _second_protobuf(environment: MutableMapping[str, str]) -> Iterator[None]:
    """Whoever imports protobuf meanwhile gets a copy of its own, in Python; later, the modules are as before."""
    modules = _take_protobuf()
    variable = environment.get(PROTOBUF)
    environment[PROTOBUF] = "python"
    try:
        yield
    finally:
        _take_protobuf()
        sys.modules.update(modules)
        sys.modules["google"].protobuf = modules["google.protobuf"]
        if variable is None:
            del environment[PROTOBUF]  # the choice was this process's, not that of the processes it starts
        else:
            environment[PROTOBUF] = variable


def _take_protobuf() -> dict[str, ModuleType]:
    """Remove protobuf from what is imported, and return it."""
    names = [name for name in sys.modules if name == "google.protobuf" or name.startswith("google.protobuf.")]
    vars(sys.modules["google"]).pop("protobuf", None)
    return {name: sys.modules.pop(name) for name in names}


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
