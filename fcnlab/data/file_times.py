"""Whether the size and the times of a file tell that it is still the same file.

They do on a file system that keeps the time of the last change of a file by itself, which nobody can set: ``cp -p``
and ``touch`` change the time of modification alone.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")

_WITHOUT_CHANGE_TIMES = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuse", "cifs", "smb", "9p", "vboxsf", "drvfs")
"""Beginnings of the names of file systems that report the time of modification, or nothing, as that of the change."""
_ON_A_SERVER = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "afs")

SETTLED = 2 * 10**9
"""Nanoseconds. A file that is written twice within one tick of the clock has one time for both, and the coarsest file
system counts in steps of two seconds: a file that is younger is not trusted."""
SETTLED_ON_A_SERVER = 60 * 10**9
"""The same where a server's clock, which may be behind, gives the times."""


def identity(path: str | os.PathLike[str], now: int) -> str | None:
    """What identifies a file and its content: another text after any change.

    Args:
        path: Of the file.
        now: Nanoseconds since 1970.

    Returns:
        None if the file system, or the file's age, allows no such thing.

    Raises:
        OSError: If the file is missing.
    """
    found = os.stat(path)
    kind = _file_system(found.st_dev)
    if kind.startswith(_WITHOUT_CHANGE_TIMES):
        return None
    settled = SETTLED
    if kind.startswith(_ON_A_SERVER):
        settled = SETTLED_ON_A_SERVER
        found = _asked_anew(path)
    if max(found.st_mtime_ns, found.st_ctime_ns) > now - settled:
        return None
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _asked_anew(path: str | os.PathLike[str]) -> os.stat_result:
    """A server's word, where `os.stat` may give what this machine remembers: opening a file asks for it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


@cache
def _file_system(device: int) -> str:
    """The kind of file system on a device, as Linux names it; empty if that cannot be told."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:  # number, parent, device, root, mount point, options, ..., -, kind, source, options
        mount, _, rest = line.partition(" - ")
        if mount.split()[2] == number:
            return rest.split()[0]
    return ""
