"""The images that a training uses, as a run describes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Input:
    """Images that a training uses.

    Attributes:
        name: Of the data set.
        context: ``training`` or ``validation``.
        digest: Changes when anything that the network sees changes.
        source: Where they are from, for a reader.
        images: How many.
    """

    name: str
    context: str
    digest: str
    source: str
    images: int
