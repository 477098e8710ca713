"""Members of a zip archive, read without taking more memory than the archive can hold."""

from __future__ import annotations

import zipfile

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read a member.

    Args:
        archive: The open archive.
        name: The member's name.
        limit: The number of bytes that the member may have.

    Raises:
        ValueError: If the member is absent, damaged, or larger. `zipfile` raises others for a damaged one.
    """
    if name not in archive.NameToInfo:
        raise ValueError(f"it has no {name}")
    member = archive.getinfo(name)
    if member.compress_type not in _COMPRESSIONS or member.flag_bits & 1:
        raise ValueError(f"{name} is compressed or encrypted in a way that weights are not")
    if member.file_size > limit:
        raise ValueError(f"{name} claims {member.file_size} bytes, and {limit} are expected")
    with archive.open(member) as file:
        content = file.read(member.file_size)
    if len(content) != member.file_size:
        raise ValueError(f"{name} is cut off")
    return content
