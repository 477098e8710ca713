"""What is known of a metric by its name, and how a name is written where MLflow reads it.

A metric's name has up to three parts: a stage, what is measured and, where it is measured of one class, that class,
such as ``val/iou/cell``. In Python the class stands there as it is called. The journal and the tracking store hold the
name that `recorded` makes of it, and whoever reads them takes it back with `read`.
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
"""The four metrics of an evaluation, and what people call them."""

IOU = "val/iou/"
"""What the name of a class's IoU begins with."""

_MARK = ":"
_WRITTEN_OUT = re.compile(r"\A[. ]|(?<= ) | \Z|[^\w.\- ]")
"""What does not stand for itself in a part of a recorded name.

MLflow takes Python's ``\\w``, which has the letters of every alphabet, and ``. - :``, blank and ``/``. Beside what it
does not take, the mark itself is written out, the ``/`` within a part, a dot at the beginning, since ``.`` and ``..``
are no names of files, and the blanks that a page does not show and a database may drop.
"""
_ASCII = {unicodedata.name(chr(code)).lower(): chr(code) for code in range(128) if unicodedata.name(chr(code), "")}
_WRITTEN = re.compile(f"{_MARK}(?:U([0-9A-F]{{4,6}})|([a-z][a-z -]*)){_MARK}")
_EMPTY = 2 * _MARK

_LONGEST = "evaluate/boundary_f1/"
"""The longest that stands before the name of a class."""
_MOST_BYTES = 250
"""MLflow takes as many characters; a store of files as many bytes, and five more, between two slashes."""


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of this metric is better: true of all but the loss."""
    return metric != "val/loss"


def best_of(metric: str, values: Iterable[float]) -> float | None:
    """The best of some values of a metric; None if none of them is a number."""
    numbers = [value for value in values if not isnan(value)]
    if not numbers:
        return None
    return max(numbers) if higher_is_better(metric) else min(numbers)


def class_names(given: Sequence[str], num_classes: int) -> list[str]:
    """Return the names of the classes that were given, or ``class_0``, ``class_1``, ... if none were."""
    return list(given) or [f"class_{index}" for index in range(num_classes)]


def recorded(metric: str) -> str:
    """The name under which the journal and MLflow hold a metric; no two metrics have the same.

    A character that MLflow does not take is written by its name between colons, ``val/iou/a+b`` as
    ``val/iou/a:plus sign:b``, and one beyond ASCII by its number: ``:U1F600:``.

    Args:
        metric: Its name in Python; what follows the second slash is the name of a class.
    """
    return "/".join(_WRITTEN_OUT.sub(_write, part) or _EMPTY for part in metric.split("/", 2))


def read(name: str) -> str:
    """The name in Python of a metric that was recorded: the inverse of `recorded`.

    A name that `recorded` cannot have made, since somebody else logged it, stays as it is where it says nothing.
    """
    return "/".join("" if part == _EMPTY else _WRITTEN.sub(_read, part) for part in name.split("/"))


def read_all(series: Mapping[str, Sequence[_Point]], class_names: Sequence[str] = ()) -> dict[str, list[_Point]]:
    """Recorded metrics by their names in Python.

    Args:
        series: Points by recorded name.
        class_names: Of the training. Older journals hold an underscore in place of every character but ASCII's
            letters, digits and ``_-./ ``: with the classes, such a name is read as that of the one class that it can
            be of. A training that went on since then has points of both names, which become one series.
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
        if of_class and len(meant) == 1:  # the class itself, where the name says it as it is
            metric = f"{stage}/{measure}/{meant[0]}"
        found.setdefault(metric, []).extend(points)
    return found


def why_refused(class_names: Sequence[str]) -> str | None:
    """What is wrong with the names of classes, to follow the key that they are from; None if nothing is.

    Each class needs a name that can be told from the others on a page and be part of a metric's name.
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
    """The names of a trained network's classes, with their numbers behind them if two classes have the same name."""
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
