"""Where things go that are kept for the next process and can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from fcnlab.core import environment


def cache_folder(name: str) -> Path:
    """``$XDG_CACHE_HOME/fcnlab/<name>``, or ``~/.cache/fcnlab/<name>``; not made here.

    Where there is no home folder, `environment.provide_home` has made one for this process.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    if not chosen:
        environment.provide_home()
    return Path(chosen or Path.home() / ".cache") / "fcnlab" / name
