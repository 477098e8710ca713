"""Text files that list samples, one a line."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from fcnlab.core.errors import DataError
from fcnlab.core.foreign_files import LARGEST_LIST, read_text, shown

IN_ROOT = "{root}/"
"""How a list begins that is in the data set's root, wherever that is, and never in the working directory."""

_LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines also splits at characters that a name may have


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list without blank ones.

    Raises:
        DataError: If it cannot be read, or is empty.
    """
    try:
        lines = [line.strip() for line in read_text(path, LARGEST_LIST).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list '{path}' cannot be read ({_reason(error)})") from None
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"list '{path}' is empty")
    return lines


def read_names(path: Path) -> list[str]:
    """Return the names in a list, each once. What follows a name on its line is left out, such as VOC's -1 and 1.

    Raises:
        DataError: As `read_lines` does, and if a name is a path or comes twice.
    """
    names: dict[str, None] = {}
    for number, line in enumerate(read_lines(path), start=1):
        name = line.split()[0]
        if _is_path(name):
            raise DataError(f"list '{path}', line {number}: '{shown(name)}' is a path; a list holds names")
        if name in names:
            raise DataError(f"list '{path}', line {number}: '{shown(name)}' comes twice")
        names[name] = None
    return list(names)


def read_stems(location: str, key: str, root: Path, stems: Collection[str]) -> set[str]:
    """Return the stems in a list that a user wrote, in which blank lines and ``#`` comments count for nothing.

    A line is the stem that it equals, blanks and all; a line in double quotes, as `listed` writes it, is what it
    quotes, and else its blanks at both ends do not count. So a name may begin with ``#`` or end with a blank.

    Args:
        location: The list, relative to the working directory or, if it is not there, to the data set's root; after
            `IN_ROOT`, to the root alone.
        key: The configuration key that names the list, for errors.
        root: The data set's root.
        stems: All stems of the data set.

    Raises:
        DataError: If the list cannot be read, names no image, or names a path, a stem twice or one that is not there.
    """
    in_root = location.startswith(IN_ROOT)
    location = location.removeprefix(IN_ROOT)
    path = Path(location).expanduser()
    if in_root or not path.exists():
        path = root / path
    try:
        lines = _LINE_END.split(read_text(path, LARGEST_LIST))
    except (OSError, UnicodeDecodeError) as error:
        where = f"in '{root}'" if in_root else f"here or in '{root}'"
        raise DataError(f"{key}: cannot read '{location}' {where} ({_reason(error)})") from None
    known = set(stems)
    named: set[str] = set()
    for number, line in enumerate(lines, start=1):
        stem = _stem(line, known)
        if not stem or (stem.startswith("#") and stem not in known):
            continue
        where = f"{key}: '{path}', line {number}"
        if _is_path(stem):
            raise DataError(f"{where}: '{shown(stem)}' is a path; write the file's stem alone")
        if stem not in known:
            hint = f"; write '{Path(stem).stem}', without the extension" if Path(stem).stem in known else ""
            raise DataError(f"{where}: there is no image '{shown(stem)}' in '{root}'{hint}")
        if stem in named:
            raise DataError(f"{where}: '{shown(stem)}' is listed twice; remove one")
        named.add(stem)
    if not named:
        raise DataError(f"{key}: '{path}' names no image, so that its split is empty")
    return named


def listed(name: str) -> str:
    """Return the line of a list that stands for a name, in double quotes where it would mean something else."""
    plain = name == name.strip() and not name.startswith(("#", '"')) and len(name.splitlines()) == 1
    return name if plain else json.dumps(name)


def _stem(line: str, known: set[str]) -> str:
    """Return the stem that a line of a list stands for."""
    exact, stripped = (unicodedata.normalize("NFC", text) for text in (line, line.strip()))
    if exact in known:
        return exact
    if stripped not in known and stripped.startswith('"'):
        with suppress(ValueError):
            return unicodedata.normalize("NFC", str(json.loads(stripped)))
    return stripped


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name in (".", "..")


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror or error)
