"""Where things go that are kept for the next process and can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """``$XDG_CACHE_HOME/fcnlab/<name>``, or ``~/.cache/fcnlab/<name>``; not made here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcnlab" / name
