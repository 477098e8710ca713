"""The images that a training uses, as a run describes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Input:
    """A set of images that a training uses.

    Attributes:
        name: The name of the data set.
        context: The use of the images: ``training``, ``validation`` or ``testing``.
        digest: A digest that changes whenever anything that the network sees changes.
        source: The origin of the images, for a reader.
        images: The number of images.
    """

    name: str
    context: str
    digest: str
    source: str
    images: int
