"""The manifest of a sweep, a file in its folder that identifies it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fcnlab.core.errors import ConfigError
from fcnlab.core.files import replacing
from fcnlab.core.identifiers import is_identifier

FILE = "sweep.json"

ROOT = "multirun"
"""The folder below the working directory in which sweeps are looked for."""


@dataclass(frozen=True)
class SweepManifest:
    """The identity of a sweep.

    Attributes:
        id: 32 hexadecimal digits, which also identify the journal of the parent run.
        overrides: The overrides of the command line that began the sweep, without flags.
        folder: The sweep's output folder; None until Hydra has chosen it.
    """

    id: str
    overrides: tuple[str, ...]
    folder: Path | None = None

    def write(self, folder: Path) -> None:
        """Write the manifest into the sweep's folder.

        Raises:
            OSError: If the disk does not take it.
        """
        with replacing(folder / FILE) as temporary:
            temporary.write_text(json.dumps({"id": self.id, "words": self.overrides}, indent=1), encoding="utf-8")


def read(folder: Path) -> SweepManifest | None:
    """Read the manifest in a folder; None if there is none, or it is damaged."""
    try:
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        overrides = tuple(map(str, document["words"]))
        return SweepManifest(document["id"], overrides, folder) if is_identifier(document["id"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def require(folder: Path, key: str) -> SweepManifest:
    """Read the manifest in a folder that must be a sweep's.

    Args:
        folder: The folder.
        key: The configuration key that named it, for the error.

    Raises:
        ConfigError: If there is no manifest, or it is damaged.
    """
    found = read(folder)
    if found is None:
        raise ConfigError(f"{key}={folder}: is no sweep's folder: it has no {FILE}")
    return found
