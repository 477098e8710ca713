"""Reads how much processor time the control groups of Linux allow this process, as containers and batch systems set it.

A container with a limit, as of ``docker --cpus=2`` or Kubernetes, still sees all processors of its host. Threads beyond
the limit would spend it sooner, and then all of them would wait. See the kernel's ``cgroup-v2`` and
``sched-bwc`` documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class _Mount(NamedTuple):
    """A mounted hierarchy of groups.

    Attributes:
        root: The group at the mount point.
        point: The mount point.
    """

    root: PurePosixPath
    point: str


def processor_quota(root: Path = Path("/")) -> float | None:
    """Return the processor time that this process may take, in processors, or None without a limit.

    The process belongs to a group, and each group above it may have a limit too: the smallest counts.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    quotas = [quota for group in _groups(root) if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folder of each group of this process that may have a limit, and of each group above it."""
    proc = root / "proc" / "self"
    try:
        memberships, mounts = (
            (proc / name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            for name in ("cgroup", "mountinfo")
        )
    except OSError:  # no Linux, or no /proc
        return
    for membership in memberships:
        number, controllers, path = membership.split(":", 2)
        is_second = number == "0" and not controllers
        if not is_second and "cpu" not in controllers.split(","):
            continue
        for mount in filter(None, (_mount(line, is_second) for line in mounts)):
            top = root / mount.point.lstrip("/")
            folder = top / _below(PurePosixPath(path), mount.root)
            yield folder
            while folder != top:
                folder = folder.parent
                yield folder


def _mount(line: str, is_second: bool) -> _Mount | None:
    """Return the mount in a line of ``mountinfo``, if it is one of the second version's or of the first one's "cpu"."""
    before, separator, after = line.partition(" - ")
    fields, (kind, _, options) = before.split(), [*after.split(), "", "", ""][:3]
    is_wanted = kind == "cgroup2" if is_second else kind == "cgroup" and "cpu" in options.split(",")
    return _Mount(PurePosixPath(_plain(fields[3])), _plain(fields[4])) if separator and is_wanted else None


def _plain(text: str) -> str:
    """Undo ``mountinfo``'s way to write blanks."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _below(group: PurePosixPath, root: PurePosixPath) -> PurePosixPath:
    """Return where a group lies below the group that is mounted; that one itself, if the group is not below it.

    In a container, the group may be named as the host sees it while the container's own group is mounted.
    """
    if ".." in group.parts or not group.is_relative_to(root):
        return PurePosixPath()
    return group.relative_to(root)


def _quota(group: Path) -> float | None:
    try:
        second = group / "cpu.max"
        if second.exists():
            quota, period = second.read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        microseconds = -1 if quota == "max" else int(quota)
        return microseconds / int(period) if microseconds > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # the group at the top of a hierarchy has no limit, and no file
        return None
