"""Reads files that others may have made: regular files alone, no larger than they have reason to be.

A named pipe among the images would otherwise be waited for without an end, a device read without one, and a few bytes
of YAML could claim all memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LARGEST_LIST = 64 * 2**20
"""The largest list of samples that is read, in bytes."""

LARGEST_YAML = 2**20
"""The largest YAML file that is read, in bytes."""

_MOST_NODES = 20_000  # The largest configuration of this package, of 255 classes with colours, has 2,000.
_DEEPEST = 50  # A configuration of this package has five levels, and to read thousands of levels takes half a minute.
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)
_SHOWN = 100  # characters


def read_bytes(path: Path, largest: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file, or a link to one.
        largest: The largest size in bytes that is read.

    Raises:
        OSError: If it cannot be read, is a named pipe, a device, a socket or a folder, or is larger.
    """
    # Without O_NONBLOCK, to open a named pipe would wait for somebody who writes to it.
    flags = [getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")]  # as far as the system has them
    descriptor = os.open(path, sum(flags, os.O_RDONLY))
    found = os.fstat(descriptor)
    kind = kind_of(found.st_mode)
    if kind is not None:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    with open(descriptor, "rb") as file:
        # The size may be a lie, as in /proc, so that what is read is limited, too.
        data = file.read(largest + 1) if found.st_size <= largest else b""
        if found.st_size > largest or len(data) > largest:
            raise OSError(errno.EFBIG, f"it is larger than {_size(largest)}", str(path))
    return data


def read_text(path: Path, largest: int) -> str:
    """Return the text of a regular file in UTF-8, whatever the locale; a byte-order mark in front is left out.

    Raises:
        OSError: As `read_bytes` does.
        UnicodeDecodeError: If it is not UTF-8.
    """
    return read_bytes(path, largest).decode("utf-8-sig")


def kind_of(mode: int) -> str | None:
    """Return what a path is, as in "a named pipe", by its ``st_mode``; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((kind for test, kind in _KINDS if test(mode)), "something else")


def require_small_yaml(text: str) -> None:
    """Refuse YAML that takes long to read: many levels, or aliases, each of which stands for all its anchor holds.

    Args:
        text: The document, which is not built for this.

    Raises:
        ValueError: If it is larger than 1 MiB, has more than 50 levels, or would have more than 20,000 values.
    """
    if len(text) > LARGEST_YAML:
        raise ValueError(f"it is larger than {_size(LARGEST_YAML)}")
    sizes: dict[str, int] = {}  # how many values an anchor stands for
    open_nodes: list[tuple[str | None, int]] = []  # the anchor of a node, and how many values there were before it
    total = 0
    for event in _events(text):
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
            if len(open_nodes) > _DEEPEST:
                raise ValueError(f"it has more than {_DEEPEST} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > _MOST_NODES:
            raise ValueError(f"it has more than {_MOST_NODES:,} values once its aliases are written out")


def _events(text: str) -> Iterator[yaml.Event]:
    """Yield what a document consists of, up to where it is not YAML, which the one who reads it will say better."""
    try:
        yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        if "*" in text:  # The two parsers differ in what they refuse: an alias beyond this place might be read.
            raise ValueError(" ".join(str(error).split())[:_SHOWN]) from None


def shown(value: Any) -> str:
    """Return a value that a file holds, as an error shows it: in one line of at most 100 characters."""
    if isinstance(value, (list, tuple, dict)) and len(value) > _SHOWN:  # Its text would be long, and take long.
        return f"{type(value).__name__} of {len(value):,} values"
    text = " ".join((value if isinstance(value, str) else repr(value))[: 10 * _SHOWN].split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _size(count: int) -> str:
    return f"{count // 2**30} GiB" if count >= 2**30 else f"{max(count // 2**20, 1)} MiB"
