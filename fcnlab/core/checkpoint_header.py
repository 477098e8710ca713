"""Reads the JSON document and the digest of a safetensors checkpoint, without MindSpore."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fcnlab.core.errors import CheckpointError, first_line

METADATA_KEY = "fcnlab"  # the value is one JSON document, as safetensors maps strings to strings
DIGEST_KEY = "sha256"
DIGESTED = "digested"  # a key of the document: says that there must be a digest, even if its name is damaged
NO_DIGEST = b"0" * 64


def read_metadata(path: Path) -> dict[str, Any]:
    """Read only the JSON document of a safetensors checkpoint, however large the weights are.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    with readable(path), safe_open(str(path), framework="numpy") as file:
        return metadata_of(file)


def read_digest(path: Path) -> str | None:
    """Return the digest that a safetensors checkpoint holds of itself; None if it holds none.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    with readable(path), safe_open(str(path), framework="numpy") as file:
        return (file.metadata() or {}).get(DIGEST_KEY)


def verify(path: Path) -> None:
    """Refuse a file that does not match the digest in it; accept a file of another program, which has no digest.

    Raises:
        ValueError: If the file is damaged.
    """
    with safe_open(str(path), framework="numpy") as file:
        expected = (file.metadata() or {}).get(DIGEST_KEY)
        if expected is None:
            if _document(file).get(DIGESTED):
                raise ValueError("its checksum is damaged")
            return
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(length + header.replace(expected.encode(), NO_DIGEST, 1))
        while data := file.read(2**20):
            digest.update(data)
    if digest.hexdigest() != expected:
        raise ValueError("its content does not match its checksum")


def metadata_of(file: safe_open) -> dict[str, Any]:
    """Return the JSON document of an open file; empty if another program wrote the file."""
    document = _document(file)
    document.pop(DIGESTED, None)
    return document


def _document(file: safe_open) -> dict[str, Any]:
    document = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    if not isinstance(document, dict):
        raise ValueError("its description is no JSON object")
    return document


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an error from reading a checkpoint within the block into one line.

    Raises:
        CheckpointError: If the file is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        yield
    except (SafetensorError, ValueError, OSError, RuntimeError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({first_line(error).strip()}); "
            "give a .safetensors or a MindSpore .ckpt file"
        ) from error
