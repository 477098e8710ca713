"""The folders of what is kept for the next process and can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from fcnlab.core import environment


def cache_folder(name: str) -> Path:
    """Return ``$XDG_CACHE_HOME/fcnlab/<name>``, by default ``~/.cache/fcnlab/<name>``, without making it.

    A process without a home folder gets one from `environment.provide_home`.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    if not chosen:
        environment.provide_home()
    return Path(chosen or Path.home() / ".cache") / "fcnlab" / name
