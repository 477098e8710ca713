"""Compiled graphs that outlive the process, so that only the first run of a kind waits for the compiler.

MindSpore can store its graphs and load them in another process, but it trusts the folder it is given: the n-th graph it
compiles is the n-th file. So an entry here is a whole folder, named by a digest of everything that shapes the graphs,
used by a process that has compiled nothing yet, and never written to once it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fcnlab import kernels
from fcnlab.user_cache import cache_folder

MAX_ENTRIES = 64
"""The oldest go first; an entry takes about 1 MiB."""

_SOURCES = ("models", "kernels", "losses", "training")


def entry_name(shape: Mapping[str, Any]) -> str:
    """A digest of what shapes the graphs: the caller's part, the versions and the source of the networks."""
    package = Path(__file__).parent
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    # A graph names the library of its compiled operators, whose own name is a digest of what it was made from.
    described = (version("mindspore"), platform.python_version(), platform.machine(), str(kernels.library()))
    digest.update(" ".join(described).encode())
    for name in _SOURCES:
        for file in sorted((package / name).glob("*.py")):
            digest.update(file.read_bytes())
    # MindSpore takes no graph that was compiled for another script, or for this one before it was edited.
    script = Path(sys.argv[0])
    digest.update(str(script.resolve()).encode())
    if script.is_file():
        digest.update(script.read_bytes())
    return digest.hexdigest()[:32]


@contextmanager
def reused_graphs(shape: Mapping[str, Any], folder: Path | None = None) -> Iterator[bool]:
    """Load what an earlier process compiled, or keep what this one compiles. Only for a process that is yet to compile.

    A folder that cannot be written costs the reuse, not the training.

    Args:
        shape: Everything of the configuration that shapes the graphs.
        folder: Of all entries.

    Yields:
        Whether there was an entry.
    """
    import mindspore as ms

    folder = folder or cache_folder("graphs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # MindSpore writes into the folder it loads from, so each process works on a copy of its own.
        private = Path(tempfile.mkdtemp(prefix=".private-", dir=folder))
    except OSError:
        yield False
        return
    entry = folder / entry_name(shape)
    found = False
    try:
        with suppress(OSError):
            shutil.copytree(entry, private, dirs_exist_ok=True)
            os.utime(entry)
            found = True
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(private))
        yield found
        if not found:
            with suppress(OSError):  # another process was faster, or the disk is full
                private.rename(entry)
                _prune(folder)
    finally:
        ms.set_context(enable_compile_cache=False)
        shutil.rmtree(private, ignore_errors=True)


def _prune(folder: Path) -> None:
    entries = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.stat().st_mtime
    )
    week_ago = time.time() - 7 * 24 * 3600
    killed = [path for path in folder.glob(".private-*") if path.stat().st_mtime < week_ago]
    for entry in [*entries[:-MAX_ENTRIES], *killed]:
        shutil.rmtree(entry, ignore_errors=True)
