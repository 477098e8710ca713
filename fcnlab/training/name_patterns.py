"""Parameters that are chosen by their names, with patterns as a shell has them for files."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

_MOST_NAMES = 3


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names that a pattern matches: ``*`` stands for any characters, dots included, ``?`` for one."""
    return [name for name in names if fnmatchcase(name, pattern)]


def near(pattern: str, names: Sequence[str]) -> str:
    """Return the names whose beginnings, or ends after a first ``*``, are most like a pattern, for an error."""
    text = pattern.replace("*", "")
    part = slice(-len(text), None) if pattern.startswith("*") else slice(len(text))
    alike = sorted(names, key=lambda name: -SequenceMatcher(None, text, name[part]).ratio())
    return ", ".join(alike[:_MOST_NAMES])
