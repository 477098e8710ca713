"""Where the YAML files of the configuration are. Nothing here imports Hydra, so that completion answers at once."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """Return the folder of the YAML files: inside the package if it came from a wheel, beside it in a checkout."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"
