"""``groups.csv`` of a prepared folder: which images belong together, as the pages of one stack do."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path

from fcnlab.core.errors import DataError
from fcnlab.core.files import replacing
from fcnlab.core.foreign_files import LARGEST_LIST, read_text

FILE = "groups.csv"

_HEADER = ["image", "group"]


def write(root: Path, groups: Mapping[str, str]) -> None:
    """Write the group of each image, or remove an earlier file where no two images are in one group.

    Args:
        root: The prepared folder.
        groups: The group of each image, by its name.

    Raises:
        OSError: If the disk does not take the file.
    """
    if len(set(groups.values())) == len(groups):
        with suppress(FileNotFoundError):
            (root / FILE).unlink()
        return
    with replacing(root / FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_HEADER, *groups.items()])


def read(root: Path) -> dict[str, str]:
    """Return the group of each image, by its name; nothing if the folder states no groups.

    Raises:
        DataError: If the file is not as `write` writes it.
    """
    path = root / FILE
    if not path.exists():
        return {}
    try:
        header, *rows = csv.reader(StringIO(read_text(path, LARGEST_LIST)))
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise DataError(f"'{path}' cannot be read ({error}): prepare the folder again, or remove it") from None
    if header != _HEADER or any(len(row) != len(_HEADER) for row in rows):
        raise DataError(f"'{path}' must have the columns {' and '.join(_HEADER)}: prepare the folder again")
    return dict(rows)
