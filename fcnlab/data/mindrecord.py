"""Samples in MindRecord files, of which a split has one or a few, for storage that suffers from many small files.

``train.mindrecord`` and ``val.mindrecord``, or ``train.mindrecord0``, ``train.mindrecord1`` and so on for a large
split, hold each sample's name, the suffix of its image's file, and the bytes of that file and of its label's PNG as
they were stored. MindSpore's writer makes them (`fcnlab.preparation.mindrecord_shards`), and its readers read them.

A training does not use those readers, since it reads samples in any order and from several threads:
`mindspore.mindrecord.MindPage` searches the whole index for each row, which takes 66 ms or more among 20,000, and
`mindspore.dataset.MindDataset` needs to know the order of an epoch beforehand. Beside each file lies its index, an
SQLite database with the place of every row, so that a sample is two reads at known places: 0.06 ms.

A file begins with the length of its header in 8 bytes, little endian, and the header in JSON; pages of one size follow
at ``header_size``. A row is its length in 8 bytes, little endian, and each of its binary fields, after the field's
length in 8 bytes, big endian.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.dataset import SPLITS, TEST
from fcnlab.data.image_files import IMAGE_EXTENSIONS
from fcnlab.data.image_folder import Folder

SCHEMA = {
    "name": {"type": "string"},
    "suffix": {"type": "string"},
    "image_bytes": {"type": "int64"},
    "label_bytes": {"type": "int64"},
    "image": {"type": "bytes"},
    "label": {"type": "bytes"},
}
"""The fields of a row, as MindSpore's writer takes them; the sizes tell where the label begins."""

INDEX = ["name", "suffix", "image_bytes", "label_bytes"]
"""The fields that the index holds."""

LABEL_SUFFIX = ".png"

_WAY_OUT = "copy it again, or make it again with python -m fcnlab.prepare ... records=true"
_LARGEST_HEADER = 128 * 2**20  # MindSpore's own limit, in bytes
_LENGTH = 8  # bytes of a length
_ROWS = """
    SELECT name_0, suffix_0, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END, image_bytes_0, label_bytes_0
    FROM INDEXES ORDER BY ROW_ID
"""


class RecordFolder(Folder):
    """The samples of ``root/train.mindrecord`` and ``root/val.mindrecord``; those of a test of ``test.mindrecord``.

    They equal those of the folder of files that the records were made from, to the bit, with the same fingerprint. A
    split is what its file holds, unless ``train_list`` or ``val_list`` say otherwise.

    Args:
        config: Where the files are, what labels mean and how to split.
        split: "train", "val" or "test".

    Raises:
        DataError: If a file is missing, damaged or truncated, or two samples share a name; as `Folder` does for lists.
    """

    def _find(self, root: Path) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
        splits = (*SPLITS, *([TEST] if self._wanted == TEST else []))
        self._shards = {split: [Shard(path) for path in shards_of(root, split)] for split in splits}
        rows: dict[str, tuple[Shard, int]] = {}
        for shard in (shard for shards in self._shards.values() for shard in shards):
            for row, name in enumerate(shard.names):
                if name in rows:
                    raise DataError(
                        f"'{rows[name][0].path}' and '{shard.path}' both hold a sample '{name}': {_WAY_OUT}"
                    )
                rows[name] = (shard, row)
        return _StoredFiles(rows, "image"), _StoredFiles(rows, "label")  # type: ignore[return-value]

    def _default_split(self, stems: list[str], root: Path) -> dict[str, set[str]]:
        return {split: {name for shard in self._shards[split] for name in shard.names} for split in SPLITS}

    def _files(self) -> Iterator[Path]:
        for shards in self._shards.values():
            for shard in shards:
                yield shard.path
                yield index_of(shard.path)


class Shard:
    """One MindRecord file, open to read any row from any thread, with its index in memory: 100 bytes a row.

    Args:
        path: The file; its index is beside it.

    Attributes:
        path: The file.
        names: The names of its rows.
        suffixes: The suffix of each row's image.

    Raises:
        DataError: If the file or its index is missing, damaged or truncated, or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = read_header(path)
        self._file, self._guard = path.open("rb", buffering=0), threading.Lock()
        size = os.fstat(self._file.fileno()).st_size
        rows = _read_index(path)
        self.names = [row[0] for row in rows]
        self.suffixes = [row[1] for row in rows]
        for name, suffix in zip(self.names, self.suffixes, strict=True):
            if not _is_name(name) or suffix not in IMAGE_EXTENSIONS:
                raise _damaged(path, f"its index has a sample {name!r} with the suffix {suffix!r}")
        try:
            places = np.array([row[2:] for row in rows], np.int64).reshape(len(rows), 5)
        except (ValueError, TypeError, OverflowError):
            raise _damaged(path, "its index has places that are no numbers") from None
        page, begin, end, image, label = places.T
        page_size, header_size = header["page_size"], header["header_size"]
        # Each number is checked before they are added up, so that no sum overflows.
        if rows and (places.min() < 0 or places[:, 1:].max() > size or page.max() > size // page_size):
            raise _damaged(path, f"it ends after {size:,} bytes and its index says that there is more")
        begin, end = header_size + page * page_size + begin, header_size + page * page_size + end
        if rows and end.max() > size:
            raise _damaged(path, f"it ends after {size:,} bytes and its index says that there are {end.max():,}")
        if not (end - begin == 3 * _LENGTH + image + label).all():
            raise _damaged(path, "its index contradicts itself")
        self._begin, self._image, self._label = begin + _LENGTH, image.copy(), label.copy()

    def read(self, row: int, kind: str) -> bytes:
        """Return the encoded ``"image"`` or ``"label"`` of a row.

        Raises:
            DataError: If the file does not hold it where its index says.
            OSError: If it cannot be read.
        """
        begin, length = int(self._begin[row]), int(self._image[row])
        if kind == "label":
            begin, length = begin + _LENGTH + length, int(self._label[row])
        data = b""
        while missing := _LENGTH + length - len(data):  # a file system may return less than it is asked for
            part = self._read_at(begin + len(data), missing)
            if not part:
                break
            data = data + part if data else part
        if missing or int.from_bytes(data[:_LENGTH], "big") != length:
            raise _damaged(self.path, f"the {kind} of '{self.names[row]}' is not where its index says")
        return data[_LENGTH:]

    def _read_at(self, position: int, count: int) -> bytes:
        if hasattr(os, "pread"):  # which moves no position that threads would share
            return os.pread(self._file.fileno(), count, position)
        with self._guard:
            self._file.seek(position)
            return self._file.read(count)


class StoredFile(NamedTuple):
    """The ``"image"`` or the ``"label"`` of a row, with as much of a `Path` as it takes to read one."""

    shard: Shard
    row: int
    kind: str

    @property
    def suffix(self) -> str:
        """The suffix of the file that it was made from."""
        return LABEL_SUFFIX if self.kind == "label" else self.shard.suffixes[self.row]

    def read_bytes(self) -> bytes:
        """Return the file's content; the errors are those of `Shard.read`."""
        return self.shard.read(self.row, self.kind)

    def __str__(self) -> str:
        return f"{self.shard.path}: {self.kind}s/{self.shard.names[self.row]}{self.suffix}"


class _StoredFiles(Mapping[str, StoredFile]):
    """The images or the labels of all rows, by name; a million objects would take much memory."""

    def __init__(self, rows: Mapping[str, tuple[Shard, int]], kind: str) -> None:
        self._rows, self._kind = rows, kind

    def __getitem__(self, name: str) -> StoredFile:
        return StoredFile(*self._rows[name], self._kind)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def has_shards(root: Path, split: str) -> bool:
    """Whether a folder holds records of a split, whole or not."""
    return any(path.name.startswith(f"{split}.mindrecord") for path in root.iterdir()) if root.is_dir() else False


def shards_of(root: Path, split: str) -> list[Path]:
    """Return the files of a split.

    Raises:
        DataError: If there is none, one that belongs to them is missing, or one is a link out of the folder.
    """
    single = root / f"{split}.mindrecord"
    pattern = re.compile(rf"{split}\.mindrecord[0-9]{{0,4}}")
    found = [single] if single.is_file() else sorted(path for path in root.iterdir() if pattern.fullmatch(path.name))
    if not found:
        raise DataError(
            f"there is no file '{single}': make it with python -m fcnlab.prepare ... records=true, or set "
            "dataset.records=false to read images and labels from their folders"
        )
    first = found[0]
    names = read_header(first)["shard_addresses"]
    if not names or not all(isinstance(name, str) and pattern.fullmatch(name) for name in names):
        raise _damaged(first, "its header names no files")
    paths = [root / name for name in names]
    for path in paths:
        if not path.is_file():
            raise DataError(f"there is no file '{path}', which belongs to '{first}': {_WAY_OUT}")
        if not path.resolve().is_relative_to(root.resolve()):
            raise DataError(f"'{path}' is a link to '{path.resolve()}', out of '{root}': copy what it leads to")
    return paths


def index_of(path: Path) -> Path:
    """Return the index of a MindRecord file."""
    return path.with_name(f"{path.name}.db")


def read_header(path: Path) -> dict[str, Any]:
    """Return what a MindRecord file says of itself.

    Returns:
        At least ``header_size`` and ``page_size`` in bytes, and ``shard_addresses``.

    Raises:
        DataError: If it cannot be read, or this package did not make it.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            data = file.read(length) if length <= _LARGEST_HEADER else b""
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from None
    try:
        header = json.loads(data)
        fields = header["schema"][0]["blob_fields"]
        sizes = [header["header_size"], header["page_size"]]
        known = fields == ["image", "label"] and isinstance(header["shard_addresses"], list)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _damaged(path, "it does not begin with a MindRecord header") from None
    if not known or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
        raise _damaged(path, "its header is not of a file that fcnlab.prepare makes")
    return header


def _read_index(path: Path) -> list[tuple[Any, ...]]:
    """Return the rows of a file's index: name, suffix, page, begin, end, and the sizes of image and label."""
    index = index_of(path)
    if not index.is_file():
        raise DataError(f"there is no file '{index}', the index of '{path.name}': {_WAY_OUT}")
    try:
        # With immutable=1, SQLite asks for no lock, which a network file system may not have.
        with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.execute("PRAGMA trusted_schema=OFF")
            kind = database.execute("SELECT type FROM sqlite_master WHERE name = 'INDEXES'").fetchone()
            if kind != ("table",):  # A view could compute for ever.
                raise _damaged(index, "it has no table INDEXES")
            return database.execute(_ROWS).fetchall()
    except sqlite3.Error as error:
        raise _damaged(index, str(error)) from None


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"'{path}' is damaged or truncated ({' '.join(reason.split())[:150]}): {_WAY_OUT}")
