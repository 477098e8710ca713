"""Archives that a data set is distributed in, unpacked safely."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcnlab.core.errors import ConfigError, DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LARGEST = 64 * 2**30  # bytes when unpacked


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """Yield a folder, or the temporary folder that an archive is unpacked into.

    Raises:
        ConfigError: If the source is neither a folder nor an archive.
        DataError: If the archive is damaged, holds a path out of the folder, or more than 64 GiB.
    """
    if source.is_dir():
        yield source
        return
    if not source.name.lower().endswith(ARCHIVES):
        raise ConfigError(f"source={source} is neither a folder nor an archive ({', '.join(ARCHIVES)})")
    with tempfile.TemporaryDirectory() as temporary:
        _unpack(source, Path(temporary))
        yield Path(temporary)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive, with nothing written outside the folder."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                _require_size(sum(item.file_size for item in file.infolist()), archive)
                file.extractall(folder)  # This drops whatever would lead out of the folder.
        else:
            with tarfile.open(archive) as file:
                members = file.getmembers()
                _require_size(sum(member.size for member in members), archive)
                file.extractall(folder, members, filter="data")
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"source={archive} cannot be unpacked ({' '.join(str(error).split())[:150]})") from None


def _require_size(size: int, archive: Path) -> None:
    if size > _LARGEST:
        raise DataError(f"source={archive} holds {size / 2**30:.0f} GiB, and at most 64 are unpacked: do it by hand")
