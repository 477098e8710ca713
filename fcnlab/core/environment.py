"""Sets the environment variables that MindSpore, OpenCV and MLflow read once, on import."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import shutil
import sys
from collections.abc import Collection, MutableMapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fcnlab.core import owned_folder
from fcnlab.core.processor import cpu_flags, thread_limit
from fcnlab.core.protobuf import use_python_protobuf

log = logging.getLogger(__name__)

ISA = "ONEDNN_MAX_CPU_ISA"

MAX_PIXELS = 2**27
"""The number of pixels of the largest image that `fcnlab.data` decodes, which is OpenCV's limit, too."""

_notices: list[str] = []


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set each variable unless the user has set it; after ``import mlflow``, also import MindSpore."""
    if "OMP_NUM_THREADS" in environment:  # MindSpore overwrites it with 1; `fcnlab.kernels` reads this instead
        environment.setdefault("FCNLAB_NUM_THREADS", environment["OMP_NUM_THREADS"])
    environment.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    if (limit := thread_limit()) is not None:
        for name in ("OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS"):  # the second is numpy's and scipy's
            environment.setdefault(name, str(limit))
    # MLflow would show a bar for each file that it moves, between the lines of a training.
    environment.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    provide_home(environment)
    if "mindspore" in sys.modules:
        return
    environment.setdefault("GLOG_v", "3")  # errors only: MindSpore's warnings address its developers
    cap_onednn(environment)
    use_python_protobuf(environment)


def provide_home(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give a process without a home folder a private one, which is removed when the process ends.

    The user of a container may have none, and MLflow asks for one on import. It is private because `cache_folder` keeps
    libraries in it that are loaded. The processes that this one starts share it.
    """
    try:
        Path.home()
    except RuntimeError:
        folder = str(owned_folder.make("fcnlab-home-"))
        environment["HOME"] = folder
        atexit.register(_remove, folder, os.getpid())
        if not environment.get("XDG_CACHE_HOME"):
            _notices.append(
                "there is no home folder, so what is compiled goes when this process ends; XDG_CACHE_HOME=<folder> "
                "keeps it"
            )


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # rather than in a forked process
        shutil.rmtree(folder, ignore_errors=True)


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
    """Whether oneDNN would pick its reference convolution, which is about 90 times slower.

    MindSpore 2.9 and newer bundle oneDNN 3, which does so on an x86 CPU with AVX-512.
    """
    major, minor = (int(part) for part in mindspore_version.split(".")[:2])
    return (major, minor) >= (2, 9) and machine in ("x86_64", "AMD64") and "avx512f" in flags


def announce() -> None:
    """Log once what `prepare` changed before any logging was set up."""
    while _notices:
        log.info(_notices.pop())
