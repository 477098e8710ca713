"""A data set whose checks are cached: files that an earlier process found good are not read again to find that out.

The cache is a folder of the user's. It holds one digest for each split, which says that exactly these files, read by
exactly this code with exactly this configuration, were all good, and what their fingerprint was. A file counts as
unchanged if its path, inode, size and times are the same, as for git; if one differs, all are read again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fcnlab.core.cache_folder import cache_folder
from fcnlab.core.files import replacing
from fcnlab.data.dataset import Dataset
from fcnlab.data.digests import digest, digest_of
from fcnlab.data.wrappers import Wrapper

log = logging.getLogger(__name__)

_MANY = 2000  # Reading this many images takes seconds.

MAX_ENTRIES = 256
"""The number of entries that are kept, 66 bytes each; the oldest are deleted first."""


class CachedChecks(Wrapper):
    """A data set that is checked, and whose fingerprint is computed, only if anything changed since the last time.

    Where `Dataset.stamp` is None, or the cache cannot be written, every start checks.

    Args:
        dataset: The data set to read.
        keys: Every key of the configuration that changes what is read from the files, or which files are accepted.
        folder: The cache; by default one in the user's cache folder.
    """

    def __init__(self, dataset: Dataset, keys: Mapping[str, Any], folder: Path | None = None) -> None:
        super().__init__(dataset)
        self._keys = repr(sorted(keys.items()))
        self._folder = folder or cache_folder("checked")
        self._found_good: str | None = None

    def check(self) -> None:
        """Let the wrapped data set check itself, unless its files are known to be good.

        Raises:
            DataError: For the first bad sample.
        """
        entry = self._entry()  # Named before the files are read: a file that changes meanwhile was not checked.
        if entry is None or self._cached(entry) is None:
            if len(self) >= _MANY:
                log.info("reading %s images once, to find what is wrong with them", f"{len(self):,}")
            self._dataset.check()
        self._found_good = entry

    def fingerprint(self) -> str:
        """Return the fingerprint of the wrapped data set, cached or computed; it is cached if `check` found no fault.

        Raises:
            DataError: As the wrapped data set does.
        """
        entry = self._entry()
        fingerprint = None if entry is None else self._cached(entry)
        if fingerprint is None:
            fingerprint = self._dataset.fingerprint()
            if entry is not None and entry == self._found_good:
                self._keep(entry, fingerprint)
        return fingerprint

    def _entry(self) -> str | None:
        """Return the name of the cache's entry for what is read now; None if a change would not be noticed."""
        stamp = self._dataset.stamp()
        return None if stamp is None else digest_of([_code(), self._keys, stamp])

    def _cached(self, entry: str) -> str | None:
        """Return the fingerprint that an entry holds; None if there is no such entry, or it is damaged."""
        path = self._folder / entry
        try:
            fingerprint, _, proof = path.read_text(encoding="ascii").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        if proof != digest_of([entry, fingerprint]):
            return None
        with suppress(OSError):
            os.utime(path)
        return fingerprint

    def _keep(self, entry: str, fingerprint: str) -> None:
        with suppress(OSError):  # Without the entry, the next start takes as long as this one.
            with replacing(self._folder / entry) as temporary:
                temporary.write_text(f"{fingerprint}\n{digest_of([entry, fingerprint])}", encoding="ascii")
            entries = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in entries[:-MAX_ENTRIES]:
                path.unlink()


@cache
def _code() -> str:
    """Return a digest of the code that reads: it may refuse a file that an older version accepted."""
    sources = [digest(path.read_bytes()) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return digest_of([*sources, *(version(name) for name in ("opencv-python-headless", "pillow", "tifffile", "numpy"))])
