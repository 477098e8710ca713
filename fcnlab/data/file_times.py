"""Whether the size and the times of a file tell that it is still the same file.

They do on a file system that keeps the time of a file's last change by itself. Nobody can set that time: ``cp -p`` and
``touch`` set only the time of modification.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from fcnlab.data.digests import digest

_MOUNTS = Path("/proc/self/mountinfo")

_WITHOUT_CHANGE_TIMES = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuse", "cifs", "smb", "9p", "vboxsf", "drvfs")
"""How the names of file systems begin that report the time of modification, or nothing, as the time of change."""
_ON_A_SERVER = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "afs")

SETTLED = 2 * 10**9
"""The age in nanoseconds from which a file's times are trusted. A file that is written twice within one tick of the
clock has one time for both, and the coarsest file system counts in steps of two seconds."""
SETTLED_ON_A_SERVER = 60 * 10**9
"""The same age where a server's clock gives the times, which may be behind this machine's."""


def digest_of_files(paths: Iterable[Path]) -> str | None:
    """Return a digest of the path, inode, size and times of files, which changes if any of the files does.

    It reads no file, only what the folders say of them.

    Args:
        paths: The files, in an order that matters.

    Returns:
        32 hexadecimal characters; None if a file is missing, or if its change might not be noticed (see `identity`).
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
    return digest("\n".join(lines).encode("utf-8", "surrogateescape"))


def identity(path: str | os.PathLike[str], now: int) -> str | None:
    """Return a text that changes whenever a file or its content does.

    Args:
        path: The file.
        now: The current time, in nanoseconds since 1970.

    Returns:
        The text; None if the file system does not keep the time of change, as far as is known, or the file is too
        young. On other systems than Linux, no file system is known.

    Raises:
        OSError: If the file is missing.
    """
    found = os.stat(path)
    kind = _file_system(found.st_dev)
    if kind is None or kind.startswith(_WITHOUT_CHANGE_TIMES):
        return None
    settled = SETTLED
    if kind.startswith(_ON_A_SERVER):
        settled = SETTLED_ON_A_SERVER
        found = _stat_on_the_server(path)
    if max(found.st_mtime_ns, found.st_ctime_ns) > now - settled:
        return None
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _stat_on_the_server(path: str | os.PathLike[str]) -> os.stat_result:
    """Open a file for its times, which asks the server; `os.stat` may return what this machine has cached."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


@cache
def _file_system(device: int) -> str | None:
    """Return the kind of file system on a device, as Linux names it; an empty text if Linux does not say.

    None stands for another system: on Windows, the time of change is the time when the file was made.
    """
    if not hasattr(os, "major"):
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:  # number, parent, device, root, mount point, options, ..., -, kind, source, options
        mount, _, rest = line.partition(" - ")
        if mount.split()[2] == number:
            return rest.split()[0]
    return ""
