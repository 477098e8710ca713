"""Whether the palettes of labels give each index one colour: tools that reduce colours number them by file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fcnlab.core.errors import DataError
from fcnlab.data.label_files import RawLabel


class Palettes:
    """The colours that the indices of labels have, gathered file by file.

    Attributes:
        contradiction: The first index that has two colours, with the files that give them; None if there is none.
    """

    def __init__(self) -> None:
        self._colours: dict[int, tuple[tuple[int, ...], str]] = {}
        self.contradiction: str | None = None

    def add(self, label: RawLabel, path: object) -> None:
        """Look at a label; only the colours of indices that it has count."""
        if label.palette is None:
            return
        for value in np.unique(label.values).tolist():
            if value >= len(label.palette):
                continue
            colour = tuple(label.palette[value].tolist())
            known, other = self._colours.setdefault(value, (colour, str(path)))
            if known != colour and self.contradiction is None:
                self.contradiction = (
                    f"the palettes of labels differ: {value} is {bracketed(known)} in '{other}' and "
                    f"{bracketed(colour)} in '{path}'"
                )


class PaletteCheck:
    """Refuses labels of one data set whose palettes contradict each other, also those of different splits.

    While all labels have one palette, as they mostly do, that is a comparison of its bytes. When another one appears,
    all labels are looked at, once. Each split has a check of its own, which begins with a palette of the other split:
    as both do so, no label of either has another palette unseen.

    Args:
        labels: A function that yields every label of the data set, with what a message calls it.
        others: A function that yields the labels of the other split; it is called once, for the first that has a
            palette.
    """

    def __init__(
        self,
        labels: Callable[[], Iterable[tuple[RawLabel, object]]],
        others: Callable[[], Iterable[RawLabel]] = tuple,
    ) -> None:
        self._labels, self._others = labels, others
        self._first: bytes | None = None
        self._agree = False
        self._lock = threading.RLock()

    def require_one_meaning(self, label: RawLabel) -> None:
        """Compare a label's palette with those before it.

        Raises:
            DataError: If an index has two colours among the labels of the data set.
        """
        if label.palette is None or self._agree:
            return
        held = label.palette.tobytes()
        if self._first is None:
            elsewhere = (other.palette for other in self._others() if other.palette is not None)
            first = next(elsewhere, label.palette)
            self._first = first.tobytes()
        if held == self._first:
            return
        with self._lock:
            if self._agree:
                return
            found = Palettes()
            for other, path in self._labels():
                found.add(other, path)
            if found.contradiction is not None:
                raise DataError(
                    f"{found.contradiction}; fcnlab.prepare colours=... matches labels by colour, and "
                    "dataset.label_values=... takes the indices whatever their colours"
                )
            self._agree = True


def bracketed(colour: Sequence[int]) -> str:
    """Return a colour as it is given in a configuration, such as ``[255,0,0]``."""
    return f"[{','.join(map(str, colour))}]"
