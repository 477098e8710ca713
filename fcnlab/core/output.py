"""Standard output and standard error that outlive their reader."""

from __future__ import annotations

import errno
import io
import os
import sys

_NO_READER = {errno.EPIPE, errno.EIO, errno.ENXIO}
"""What a pipe whose reader has ended and a terminal that was closed say."""


def outlive_reader() -> None:
    """Drop what is written to standard output and standard error once nobody reads it any more.

    A training does not end because the terminal was closed, or ``| head`` has seen enough: its log file goes on. What a
    full disk does not take is dropped, too. Streams that are no files, as those of a notebook, stay as they are.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or _descriptor(stream) != descriptor:
            continue
        stream.flush()
        replacement = io.TextIOWrapper(
            io.BufferedWriter(_Output(descriptor, "wb", closefd=False)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, replacement)


class _Output(io.FileIO):
    """A file whose errors are nobody's concern."""

    def write(self, data: bytes | memoryview) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in _NO_READER:
                discard(self.fileno())  # for libraries that write by themselves, too
            return len(data)


def discard(descriptor: int) -> None:
    """Drop what anything in this process writes to a file descriptor from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _descriptor(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None
