"""The images that a training uses, as a run describes them."""

from __future__ import annotations

import json
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

    @property
    def profile(self) -> str:
        """What a record holds of the images beside the other attributes, as JSON; `count_of` reads it."""
        return json.dumps({"images": self.images})


def count_of(profile: str) -> int | None:
    """Return the number of images that an `Input.profile` states; None if it states none."""
    try:
        document = json.loads(profile)
    except ValueError:
        return None
    count = document.get("images") if isinstance(document, dict) else None
    return count if isinstance(count, int) else None
