"""Remembers which way to run PyTorch is the fastest on this machine, since comparing them takes half an hour."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.processor import describe_cpu, usable_processors


class FastestWays:
    """The names of the fastest ways, kept in a JSON file in the user's cache.

    They count for a processor, a number of usable processors and a version of PyTorch.

    Args:
        file: The file; by default one in the user's cache.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or cache_folder("benchmarks") / "pytorch.json"
        self._machine = f"{describe_cpu()}, {usable_processors()} usable, PyTorch {version('torch')}"

    def get(self, what: str) -> str | None:
        """Return the fastest way to compute something; None if it was not measured on this machine."""
        return self._read().get(self._machine, {}).get(what)

    def add(self, what: str, way: str) -> None:
        """Remember the fastest way to compute something."""
        known = self._read()
        known.setdefault(self._machine, {})[what] = way
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(known, indent=1), encoding="utf-8")

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # there is none, or it is damaged: it is measured again
            return {}
