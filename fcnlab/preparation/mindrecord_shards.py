"""The samples of a prepared folder, written as MindRecord files (see `fcnlab.data.mindrecord`)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fcnlab.core.errors import DataError
from fcnlab.core.files import sync
from fcnlab.data.decode import read_file
from fcnlab.data.labelled_files import LabelledFiles
from fcnlab.data.mindrecord import INDEX, LABEL_SUFFIX, SCHEMA, Shard, index_of, shards_of

SHARD_BYTES = 2 * 2**30
"""A split is spread over as many files as it takes for each to be no larger than about this."""

_TEMPORARY = ".records.partial"
_BATCH_BYTES = 8 * 2**20
_HEADER_BYTES = 2**20  # It holds some 100 bytes for each page and each batch of a shard.
_PAGES = (2**20, 256 * 2**20)  # the smallest and the largest page in bytes; the last is MindSpore's limit


def write_split(root: Path, split: str, samples: LabelledFiles) -> bool:
    """Write a split's records, unless those that are there hold the same.

    MindSpore's readers insist on the files' names, so that the files are written under these names in a folder beside
    and then moved, each before its index: an interruption leaves the old files, or files that are known to be
    incomplete.

    Args:
        root: The folder for the files.
        split: "train" or "val".
        samples: The split's samples.

    Returns:
        Whether the records had to be written.

    Raises:
        DataError: If a sample is too large, or a file cannot be read.
        OSError: If the disk does not take the records.
    """
    if _same(root, split, samples):
        return False
    sizes = {
        name: samples.image_path(name).stat().st_size + samples.label_path(name).stat().st_size
        for name in samples.names
    }
    largest = max(sizes, key=sizes.__getitem__)
    page = _PAGES[0]
    while page < 4 * (sizes[largest] + 2**10) and page < _PAGES[1]:
        page *= 2
    if sizes[largest] + 2**10 > page:
        raise DataError(
            f"image '{samples.image_path(largest)}' has {sizes[largest]:,} bytes with its label, and a MindRecord page "
            f"at most {_PAGES[1]:,}: leave out records=true, or cut it into tiles"
        )
    folder = root / _TEMPORARY
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        shards = -(-sum(sizes.values()) // SHARD_BYTES)
        _write(folder / f"{split}.mindrecord", min(shards, len(samples)), page, samples)
        _remove(root, split)
        for path in shards_of(folder, split):
            for place in (path, index_of(path)):  # The index comes last: a file without one is not read.
                place.chmod(0o666 & ~_umask())  # MindSpore's writer lets nobody else read them.
                sync(place)
                place.replace(root / place.name)
        sync(root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _remove(root: Path, split: str) -> None:
    """Remove a split's records, each index before its file."""
    names = re.compile(rf"{split}\.mindrecord[0-9]*(\.db)?")
    for path in sorted(root.iterdir(), reverse=True):
        if names.fullmatch(path.name):
            path.unlink()


def _write(path: Path, shards: int, page: int, samples: LabelledFiles) -> None:
    from mindspore.mindrecord import FileWriter

    try:
        writer = FileWriter(str(path), shards)
        writer.set_header_size(_HEADER_BYTES)
        writer.set_page_size(page)
        writer.add_schema(SCHEMA, "fcnlab")
        writer.add_index(INDEX)
        for batch in _batches(samples):
            writer.write_raw_data(batch)
        writer.commit()
    except RuntimeError as error:  # MindSpore's errors have many lines, with the reason after [ERROR].
        reason = " ".join(str(error).partition("[ERROR]")[2].split())[:150] or type(error).__name__
        raise DataError(f"cannot write '{path}' ({reason}): free space, or leave out records=true") from None


def _batches(samples: LabelledFiles) -> Iterator[list[dict[str, Any]]]:
    """Yield rows, a few MiB at a time."""
    rows, held = [], 0
    for name in samples.names:
        image, label = read_file(samples.image_path(name), "image"), read_file(samples.label_path(name), "label")
        sizes = {"image_bytes": len(image), "label_bytes": len(label)}
        suffix = samples.image_path(name).suffix
        rows.append({"name": name, "suffix": suffix, **sizes, "image": image, "label": label})
        held += len(image) + len(label)
        if held > _BATCH_BYTES:
            yield rows
            rows, held = [], 0
    if rows:
        yield rows


def _same(root: Path, split: str, samples: LabelledFiles) -> bool:
    """Whether the records that are there hold exactly these files."""
    try:
        rows = {
            name: (shard, row) for shard in map(Shard, shards_of(root, split)) for row, name in enumerate(shard.names)
        }
        return rows.keys() == set(samples.names) and all(
            shard.suffixes[row] == samples.image_path(name).suffix
            and samples.label_path(name).suffix == LABEL_SUFFIX
            and shard.read(row, "image") == samples.image_path(name).read_bytes()
            and shard.read(row, "label") == samples.label_path(name).read_bytes()
            for name, (shard, row) in rows.items()
        )
    except (DataError, OSError):  # What is missing or damaged is written again.
        return False


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
