"""Writes files that appear whole or not at all, and digests files of any size."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = re.compile(r"\.(.+\.)?[0-9a-f]{16}\.partial", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file by one that is written within the block; if the block fails, nothing is replaced.

    The new content and its name are on the disk afterwards, so that a power cut loses neither. Of several processes
    that replace the same file at once, the last one to end prevails.

    Yields:
        The path to write to, beside the file and for this call alone. Missing folders are made.

    Raises:
        OSError: If the folder cannot be made or the file cannot be replaced.
    """
    with _aside(path) as temporary:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Create a file that is written within the block, unless another process creates it meanwhile: that one stays.

    Everything else is as in `replacing`.
    """
    with _aside(path) as temporary:
        yield temporary
        sync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not path.exists():
                temporary.replace(path)
        with suppress(FileNotFoundError):
            temporary.unlink()
        sync(path.parent)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Give a path beside a file, for this call alone, and remove what is there if the block fails."""
    # It begins with the file's name, which may be as long as is allowed, so that what a killed process left is known.
    name = path.name.encode()[:200].decode(errors="ignore")
    temporary = path.with_name(f".{name}.{secrets.token_hex(8)}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def remove_partial(folder: Path) -> None:
    """Remove the files that killed processes did not finish; call it only where no other process writes.

    Args:
        folder: The folder to look in, but not below; it may be missing.
    """
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        if _PARTIAL.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk.

    Raises:
        OSError: If the disk refuses.
    """
    if os.name == "nt" and path.is_dir():  # Windows cannot do this for a folder
        return
    # Windows waits for the disk only if the file may be written.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file that may be large, in 64 hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(2**20):
            digest.update(data)
    return digest.hexdigest()


def shortest(path: Path) -> str:
    """Return how a user would type a path here: relative to the working directory if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
