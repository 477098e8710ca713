"""Names of images, of which no two are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from fcnlab.core.errors import DataError


def require_unique(names: Sequence[str], source: str | None) -> None:
    """Refuse images of a source of which two would have one name.

    Raises:
        DataError: If there are two.
    """
    twice = first_twice(names)
    if twice is not None:
        raise DataError(f"source={source}: two images would be called '{twice}': rename one")


def unique_names(names: Sequence[str], splits: Sequence[str | None]) -> list[str]:
    """Return names of which no two are equal: where two splits share one, the split stands before it."""
    often = Counter(names)
    return [f"{split}-{name}" if often[name] > 1 else name for name, split in zip(names, splits, strict=True)]


def unique_stems(files: Sequence[tuple[str, PurePosixPath]]) -> dict[str, str]:
    """Return a name for each file: its stem, or its path with - between the folders where stems are shared.

    Args:
        files: What each name is wanted for, with the path of the file below the source.

    Raises:
        DataError: If two files would have one name.
    """
    stems = [path.stem for _, path in files]
    often = Counter(stems)
    names = {
        key: "-".join((*path.parts[:-1], path.stem)).strip("/") if often[path.stem] > 1 else path.stem
        for key, path in files
    }
    twice = first_twice(list(names.values()))
    if twice is not None:
        raise DataError(f"two images are called {twice}: rename one")
    return names


def first_twice(names: Sequence[str]) -> str | None:
    """Return the first name that comes twice; None if there is none."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
