"""Makes distinct colours for classes."""

from __future__ import annotations

import numpy as np


def palette(num_classes: int) -> np.ndarray:
    """Return distinct colours, num_classes x 3 uint8 RGB, by the rule of PASCAL VOC.

    The rule spreads the bits of a class's index over the channels.
    """
    index = np.arange(num_classes, dtype=np.int64)
    colours = np.zeros((num_classes, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)
