"""Names of metrics, in Python and as MLflow takes them.

A metric's name has up to three parts: a stage, a measure and, for the metric of a single class, the class, such as
``val/iou/cell``. In Python the name of the class is written as it is. The journal and the tracking store hold the name
that `recorded` returns, from which `read` returns the name in Python.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import TypeVar

_Point = TypeVar("_Point")

SUMMARY = {
    "val/mean_iou": "mean IoU",
    "val/pixel_accuracy": "pixel accuracy",
    "val/mean_accuracy": "mean accuracy",
    "val/frequency_weighted_iou": "frequency-weighted IoU",
}
"""The four metrics of an evaluation, with their names in English."""

IOU = "val/iou/"
"""The beginning of the name of a class's IoU."""

_MARK = ":"
_WRITTEN_OUT = re.compile(r"\A[. ]|(?<= ) | \Z|[^\w.\- ]")
"""The characters that are written out in a part of a recorded name.

MLflow takes Python's ``\\w``, which has the letters of every alphabet, and ``. - :``, blank and ``/``. All other
characters are written out, and so are the mark itself, a ``/`` within a part, a dot at the beginning, since ``.`` and
``..`` are no names of files, and blanks that a page does not show and a database may drop.
"""
_ASCII = {unicodedata.name(chr(code)).lower(): chr(code) for code in range(128) if unicodedata.name(chr(code), "")}
_WRITTEN = re.compile(f"{_MARK}(?:U([0-9A-F]{{4,6}})|([a-z][a-z -]*)){_MARK}")
_EMPTY = 2 * _MARK

_LONGEST = "evaluate/boundary_f1/"
"""The longest text before the name of a class."""
_MOST_BYTES = 250
"""The number of characters that MLflow takes; a store of files takes 255 bytes between two slashes."""


def higher_is_better(metric: str) -> bool:
    """Return whether a larger value of this metric is better, as it is for all metrics except the loss."""
    return metric.partition("/")[2] != "loss"


def best_of(metric: str, values: Iterable[float]) -> float | None:
    """Return the best of the values of a metric, or None if all of them are NaN."""
    numbers = [value for value in values if not isnan(value)]
    if not numbers:
        return None
    return max(numbers) if higher_is_better(metric) else min(numbers)


def class_names(given: Sequence[str], num_classes: int) -> list[str]:
    """Return the names of the classes that were given, or ``class_0``, ``class_1``, ... if none were."""
    return list(given) or [f"class_{index}" for index in range(num_classes)]


def recorded(metric: str) -> str:
    """Return the name of a metric in the journal and in MLflow, which no other metric has.

    A character that MLflow does not take is written as its name between colons, so that ``val/iou/a+b`` becomes
    ``val/iou/a:plus sign:b``, and one beyond ASCII as its number: ``:U1F600:``.

    Args:
        metric: The name in Python; everything after the second slash is the name of a class.
    """
    return "/".join(_WRITTEN_OUT.sub(_write, part) or _EMPTY for part in metric.split("/", 2))


def read(name: str) -> str:
    """Return the name in Python of a recorded metric; this is the inverse of `recorded`.

    Somebody else may have logged names that `recorded` never returns; their unknown parts stay as they are.
    """
    return "/".join("" if part == _EMPTY else _WRITTEN.sub(_read, part) for part in name.split("/"))


def read_all(series: Mapping[str, Sequence[_Point]], class_names: Sequence[str] = ()) -> dict[str, list[_Point]]:
    """Return recorded metrics by their names in Python.

    Args:
        series: The points of each metric, by recorded name.
        class_names: The classes of the training. Older journals hold an underscore in place of every character except
            ASCII letters, digits and ``_-./ ``. Such a name is read as that of the one class that it fits. If the
            training was resumed later, points of both names become one series.
    """
    older: dict[str, list[str]] = {}
    for name in class_names:
        older.setdefault(re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name), []).append(name)
    found: dict[str, list[_Point]] = {}
    for name, points in series.items():
        metric = read(name)
        stage, _, rest = metric.partition("/")
        measure, _, of_class = rest.partition("/")
        meant = older.get(of_class, ())
        if of_class and len(meant) == 1:  # the class itself, if the name was written as it is
            metric = f"{stage}/{measure}/{meant[0]}"
        found.setdefault(metric, []).extend(points)
    return found


def why_refused(class_names: Sequence[str]) -> str | None:
    """Return the first problem with the names of classes, to be written after their key, or None if there is none.

    Each class needs a name that looks different from all others on a page and can be a part of a metric's name.
    """
    seen: dict[str, int] = {}
    for index, name in enumerate(class_names):
        if not name.strip():
            return f"class {index} has no name: give it one"
        if any(unicodedata.category(character) == "Cs" for character in name):
            return f"the name of class {index}, {name!a}, is no text: write it in UTF-8"
        size = len(recorded(f"{_LONGEST}{name}").encode())
        if size > _MOST_BYTES:
            return (
                f"the name of class {index}, '{name[:20]}…', is too long: its metrics' names would have {size} bytes, "
                f"and MLflow's stores take {_MOST_BYTES}: give it a shorter one"
            )
        other = seen.setdefault(" ".join(unicodedata.normalize("NFC", name).split()), index)
        if other != index:
            return f"'{' '.join(name.split())}' is the name of classes {other} and {index}: give each class its own"
    return None


def told_apart(class_names: Sequence[str]) -> list[str]:
    """Return the names of classes, each followed by its number if two classes have the same name."""
    if len(set(class_names)) == len(class_names):
        return list(class_names)
    return [f"{name} ({index})" for index, name in enumerate(class_names)]


def _write(character: re.Match[str]) -> str:
    known = unicodedata.name(character[0], "").lower() if character[0].isascii() else ""
    return f"{_MARK}{known or f'U{ord(character[0]):04X}'}{_MARK}"


def _read(written: re.Match[str]) -> str:
    if written[1]:
        code = int(written[1], 16)
        return chr(code) if code < 0x110000 else written[0]
    return _ASCII.get(written[2], written[0])
