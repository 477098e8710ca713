"""Describes the versions, the processor and the caches that a training here would use."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fcnlab
from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.processor import cpu_flags, describe_cpu, usable_processors
from fcnlab.registry import ENCODERS, REGISTRIES, TRANSFORMS

PACKAGES = (
    *("mindspore", "numpy", "opencv-python-headless", "hydra-core", "omegaconf", "mlflow", "safetensors"),
    *("onnx", "onnxruntime", "optuna", "h5py", "torch"),
)
"""The packages whose versions a bug report needs; those of the second line are optional."""

_OF_INTEREST = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd")
_CACHES = {"kernels": "operators", "graphs": "graphs", "checked": "checked files"}


def versions() -> list[tuple[str, str]]:
    """Return (name, text) pairs about the software: this package, the system and the packages that are installed."""
    return [
        ("fcnlab", f"{fcnlab.__version__} in {Path(fcnlab.__file__).parent}"),
        ("system", f"{platform.platform()}, Python {platform.python_version()}"),
        ("packages", ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)) is not None)),
        ("plug-ins", ", ".join(_plug_ins()) or "none"),
    ]


def processor() -> tuple[str, str]:
    """Return the processor, how much of it this process may use, and its instruction sets for arithmetic."""
    flags = cpu_flags()
    sets = " ".join(name for name in _OF_INTEREST if name in flags)
    return "processor", f"{describe_cpu()}, {usable_processors()} usable{f'; {sets}' if sets else ''}"


def caches() -> list[tuple[str, str]]:
    """Return a (name, text) pair for each cache: its folder, and how many files of which size are in it."""
    found = []
    for name, what in _CACHES.items():
        folder = cache_folder(name)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        found.append((f"cache of {what}", f"{folder}: {len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB"))
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plug_ins() -> list[str]:
    registries = {**REGISTRIES, "augment": TRANSFORMS, "arch.encoder": ENCODERS}
    return [
        f"{group}={name}"
        for group, registry in registries.items()
        for name in sorted({*registry.additional()} - {*registry.builtin()})
    ]
