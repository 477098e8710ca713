"""Lists of samples in text files."""

from __future__ import annotations

from pathlib import Path

from fcnlab.core.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without blank ones.

    Raises:
        DataError: If it cannot be read, or is empty.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"list '{path}' cannot be read ({reason})") from None
    lines = [line for line in lines if line]
    if not lines:
        raise DataError(f"list '{path}' is empty")
    return lines


def read_names(path: Path) -> list[str]:
    """The names in a list, one a line, each once; what follows a name on its line is left out, as VOC's own -1 and 1.

    Raises:
        DataError: As `read_lines` does, and if a name is a path or comes twice.
    """
    names: dict[str, None] = {}
    for number, line in enumerate(read_lines(path), start=1):
        name = line.split()[0]
        if "/" in name or "\\" in name or name in (".", ".."):
            raise DataError(f"list '{path}', line {number}: '{name}' is a path; a list holds names")
        if name in names:
            raise DataError(f"list '{path}', line {number}: '{name}' comes twice")
        names[name] = None
    return list(names)
