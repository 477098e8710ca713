"""Images of two splits that show nearly the same, so that the validation measures what was learnt by heart.

Each image is reduced to a fingerprint of 256 bits: which of two neighbouring pixels of a 17 x 16 copy in grey is
brighter (a difference hash). Compression, noise, brightness and a change of size leave nearly all bits as they are.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import cv2
import numpy as np

from fcnlab.data.channels import to_rgb

_SIDE = 16
_MOST_BITS = 20
"""How many bits of 256 may differ. Those of two unrelated images differ in about 128, give or take 8."""

_FLAT = 2.0  # grey levels: below this standard deviation, the bits are noise
_PAGE = re.compile(r"(.+)-(\d{4,})")
_CHUNK = 512


class Pair(NamedTuple):
    """Two images that are nearly the same, each with its split, as ``train: a``."""

    one: str
    other: str


class NearDuplicates:
    """Gathers the images of all splits and tells which of them, in different splits, are nearly the same."""

    def __init__(self) -> None:
        self._bits: dict[str, list[np.ndarray]] = {}
        self._names: dict[str, list[str]] = {}
        self._all_names: dict[str, set[str]] = {}

    def add(self, split: str, name: str, image: np.ndarray) -> None:
        """Add an image, H x W x C uint8 or uint16."""
        self._all_names.setdefault(split, set()).add(name)
        grey = cv2.cvtColor(to_rgb(image), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        if small.std() < _FLAT:
            return
        self._bits.setdefault(split, []).append(np.packbits(small[:, 1:] > small[:, :-1]))
        self._names.setdefault(split, []).append(name)

    def pairs(self) -> list[Pair]:
        """Return the pairs of nearly the same images in different splits, in order."""
        found = []
        splits = list(self._bits)
        for position, first in enumerate(splits):
            for second in splits[position + 1 :]:
                found += self._between(first, second)
        return found

    def neighbours(self) -> list[Pair]:
        """Return the pairs of pages that follow each other in one stack, by their names, and are in two splits."""
        place = {name: split for split, names in self._all_names.items() for name in names}
        found = []
        for name, split in place.items():
            page = _PAGE.fullmatch(name)
            if page is None:
                continue
            following = f"{page[1]}-{int(page[2]) + 1:0{len(page[2])}d}"
            if place.get(following, split) != split:
                found.append(Pair(f"{split}: {name}", f"{place[following]}: {following}"))
        return sorted(found)

    def _between(self, first: str, second: str) -> list[Pair]:
        ones = np.unpackbits(np.array(self._bits[first]), axis=1).astype(np.float32)
        others = np.unpackbits(np.array(self._bits[second]), axis=1).astype(np.float32)
        found = []
        for start in range(0, len(ones), _CHUNK):
            part = ones[start : start + _CHUNK]
            # The number of differing bits: |a| + |b| - 2 ab.
            differing = part.sum(axis=1)[:, None] + others.sum(axis=1) - 2 * part @ others.T
            for row, column in np.argwhere(differing <= _MOST_BITS).tolist():
                one, other = self._names[first][start + row], self._names[second][column]
                found.append(Pair(f"{first}: {one}", f"{second}: {other}"))
        return found


def lines(found: NearDuplicates) -> list[str]:
    """Return a line for each kind of near-duplicates that there are, with their number and an example."""
    said = []
    pairs, neighbours = found.pairs(), found.neighbours()
    if pairs:
        said.append(
            f"{len(pairs)} pairs of images in different splits are nearly the same, such as {pairs[0].one} and "
            f"{pairs[0].other}: keep such images together with group_by when the folder is prepared"
        )
    if neighbours:
        said.append(
            f"{len(neighbours)} pairs of neighbouring pages of one stack are in different splits, such as "
            f"{neighbours[0].one} and {neighbours[0].other}"
        )
    return said
