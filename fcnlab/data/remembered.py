"""Data sets whose files were read once and found good need not be read again for that.

What is remembered, in the user's cache folder, is one digest for each split: that exactly these files, read by exactly
this code with exactly this configuration, were all good, and what their fingerprint was. A file is taken for the same
by its path, its inode, its size and its times, as git does; if any is another, all are read again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fcnlab.config.roles import Role
from fcnlab.config.schema import keys_with
from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.files import replacing
from fcnlab.data.dataset import Dataset, Sample, Wrapper
from fcnlab.data.file_times import identity
from fcnlab.data.fingerprint import digest, digest_of

log = logging.getLogger(__name__)

_MANY = 2000  # of which reading takes seconds

MAX_ENTRIES = 256
"""The oldest go first; an entry has 66 bytes."""


class Remembered(Wrapper):
    """A data set that is checked, and whose fingerprint is computed, only if its files are not those of another time.

    Where `Dataset.stamp` is None, or the cache cannot be written, it is as without.

    Args:
        dataset: What to read.
        folder: Of what is remembered; by default in the user's cache.
    """

    def __init__(self, dataset: Dataset, folder: Path | None = None) -> None:
        super().__init__(dataset)
        self._folder = folder or cache_folder("checked")
        self._good: str | None = None

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[index]

    def label(self, index: int) -> np.ndarray:
        """That of the wrapped data set."""
        return self._dataset.label(index)

    def class_pixels(self, num_classes: int) -> np.ndarray:
        """Those of the wrapped data set.

        Raises:
            DataError: For its first bad sample.
        """
        return self._dataset.class_pixels(num_classes)

    def check(self) -> None:
        """Let the wrapped data set check itself, unless its files are remembered as good.

        Raises:
            DataError: For its first bad sample.
        """
        stamp = self._dataset.stamp()  # before the files are read: what changes meanwhile is not what was checked
        if stamp is None or self._recall(stamp) is None:
            if len(self) >= _MANY:
                log.info("reading %s images once, to find what is wrong with them", f"{len(self):,}")
            self._dataset.check()
        self._good = stamp

    def fingerprint(self) -> str:
        """That of the wrapped data set, remembered or computed; if it has been checked, it is remembered from now on.

        Raises:
            DataError: As the wrapped data set does.
        """
        stamp = self._dataset.stamp()
        known = None if stamp is None else self._recall(stamp)
        if known is not None:
            return known
        found = self._dataset.fingerprint()
        if stamp is not None and stamp == self._good:
            self._keep(stamp, found)
        return found

    def _recall(self, stamp: str) -> str | None:
        """The fingerprint under a stamp; None if there is none, or the file is damaged."""
        path = self._folder / stamp
        try:
            fingerprint, _, proof = path.read_text(encoding="ascii").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        if proof != digest_of([stamp, fingerprint]):
            return None
        with suppress(OSError):
            os.utime(path)
        return fingerprint

    def _keep(self, stamp: str, fingerprint: str) -> None:
        with suppress(OSError):  # without it the next start takes as long as this one
            with replacing(self._folder / stamp) as temporary:
                temporary.write_text(f"{fingerprint}\n{digest_of([stamp, fingerprint])}", encoding="ascii")
            entries = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for entry in entries[:-MAX_ENTRIES]:
                entry.unlink()


def stamp_of(paths: Iterable[Path], config: Any, *meaning: Any) -> str | None:
    """A digest of how files are read, and of the path, size and times of each; costs one look at the folder a file.

    Args:
        paths: In order.
        config: A dataclass of which every key counts whose role includes READS, or that states no role.
        meaning: What else decides what is read, as strings, numbers and lists of them.

    Returns:
        32 hexadecimal characters; None if a file is missing or young, or its times do not tell whether it has changed
        (see `fcnlab.data.file_times`).
    """
    lines, now = [], time.time_ns()
    try:
        for path in paths:
            found = identity(path, now)
            if found is None:
                return None
            lines.append(f"{os.path.abspath(path)}\0{found}")
    except (OSError, ValueError):
        return None
    keys = keys_with(Role.READS, config)
    files = digest("\n".join(lines).encode("utf-8", "surrogateescape"))
    return digest_of([_code(), repr(sorted(keys.items())), list(meaning), files])


@cache
def _code() -> str:
    """A digest of what reads: what an older version found good, this one may refuse."""
    sources = [digest(path.read_bytes()) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return digest_of([*sources, *(version(name) for name in ("opencv-python-headless", "pillow", "tifffile", "numpy"))])
