"""The samples of a prepared folder as MindRecord files: see `fcnlab.data.mindrecord`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fcnlab.core.errors import DataError
from fcnlab.core.files import sync
from fcnlab.data.decode import read_file
from fcnlab.data.mindrecord import INDEX, LABEL_SUFFIX, SCHEMA, Shard, index_of, shards_of

SHARD_BYTES = 2 * 2**30
"""A split is spread over as many files as it takes for each to be no larger than about this."""

_TEMPORARY = ".records.partial"
_BATCH_BYTES = 8 * 2**20
_HEADER_BYTES = 2**20  # holds some 100 bytes for each page and each batch of a shard
_PAGES = (2**20, 256 * 2**20)  # bytes: the last is MindSpore's limit


class Files(NamedTuple):
    """A sample's files."""

    name: str
    image: Path
    label: Path


def write_split(root: Path, split: str, samples: Sequence[Files]) -> bool:
    """Write a split's records, unless those that are there hold the same.

    The files come to be under their own names in a folder beside, since their readers insist on these, and are then put
    in place, each with its index after it: an interruption leaves what was there, or what is seen to be incomplete.

    Args:
        root: Where they go.
        split: "train" or "val".
        samples: In order.

    Returns:
        Whether they had to be written.

    Raises:
        DataError: If a sample is too large, or a file cannot be read.
        OSError: If the disk does not take them.
    """
    if _same(root, split, samples):
        return False
    sizes = [sample.image.stat().st_size + sample.label.stat().st_size for sample in samples]
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    page = _PAGES[0]
    while page < 4 * (sizes[largest] + 2**10) and page < _PAGES[1]:
        page *= 2
    if sizes[largest] + 2**10 > page:
        raise DataError(
            f"image '{samples[largest].image}' has {sizes[largest]:,} bytes with its label, and a MindRecord page at "
            f"most {_PAGES[1]:,}: leave out records=true, or cut it into tiles"
        )
    folder = root / _TEMPORARY
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        shards = -(-sum(sizes) // SHARD_BYTES)
        _write(folder / f"{split}.mindrecord", min(shards, len(samples)), page, samples)
        remove(root, split)
        for path in shards_of(folder, split):
            for place in (path, index_of(path)):  # the index last: a file without one is not read
                place.chmod(0o666 & ~_umask())  # MindSpore's writer lets nobody else read them
                sync(place)
                place.replace(root / place.name)
        sync(root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def remove(root: Path, split: str) -> None:
    """Remove a split's records."""
    names = re.compile(rf"{split}\.mindrecord[0-9]*(\.db)?")
    for path in sorted(root.iterdir(), reverse=True):  # an index before its file
        if names.fullmatch(path.name):
            path.unlink()


def _write(path: Path, shards: int, page: int, samples: Sequence[Files]) -> None:
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
    except RuntimeError as error:  # MindSpore's, of many lines, with the reason after ERROR
        reason = " ".join(str(error).partition("[ERROR]")[2].split())[:150] or type(error).__name__
        raise DataError(f"cannot write '{path}' ({reason}): free space, or leave out records=true") from None


def _batches(samples: Sequence[Files]) -> Iterator[list[dict[str, Any]]]:
    """Rows, a few MiB at a time."""
    rows, held = [], 0
    for sample in samples:
        image, label = read_file(sample.image, "image"), read_file(sample.label, "label")
        sizes = {"image_bytes": len(image), "label_bytes": len(label)}
        rows.append({"name": sample.name, "suffix": sample.image.suffix, **sizes, "image": image, "label": label})
        held += len(image) + len(label)
        if held > _BATCH_BYTES:
            yield rows
            rows, held = [], 0
    if rows:
        yield rows


def _same(root: Path, split: str, samples: Sequence[Files]) -> bool:
    """Whether the records that are there hold exactly these files."""
    try:
        rows = {
            name: (shard, row) for shard in map(Shard, shards_of(root, split)) for row, name in enumerate(shard.names)
        }
        if rows.keys() != {sample.name for sample in samples}:
            return False
        for sample in samples:
            shard, row = rows[sample.name]
            if shard.suffix(row) != sample.image.suffix or sample.label.suffix != LABEL_SUFFIX:
                return False
            if shard.read(row, "image") != sample.image.read_bytes():
                return False
            if shard.read(row, "label") != sample.label.read_bytes():
                return False
    except (DataError, OSError):  # what is missing or damaged is made anew
        return False
    return True


def _umask() -> int:
    """The process's; it can only be asked for by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
