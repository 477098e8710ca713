"""What a reader gives: the arrays of a file by name, and what else is known of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LARGEST = 2**32
"""The number of bytes above which a file, or its arrays as float32, are refused; VGG-16 takes 0.6 GiB."""

_EXPANSION = 64  # times a file's size: weights hardly compress


@dataclass(frozen=True)
class WeightsFile:
    """The arrays of a file of weights.

    Attributes:
        kind: The format, such as ``"ONNX"``.
        arrays: Float32 arrays by the names that the file gives them.
        metadata: What the file says beside the arrays; of a checkpoint of this package, its JSON document.
        convolutions: The convolutions in the order in which they are computed, where the file tells: each from the
            parts ``weight``, ``bias``, ``gamma``, ``beta``, ``moving_mean`` and ``moving_variance`` that it has to the
            names of their arrays.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any] = field(default_factory=dict)
    convolutions: Sequence[dict[str, str]] = ()


def check_size(shapes: Iterable[Sequence[int]], file_size: int) -> None:
    """Refuse arrays that take far more memory than their file could hold, before the memory is taken.

    Args:
        shapes: The shapes that the file claims, all of them.
        file_size: The size of the file in bytes.

    Raises:
        ValueError: If the arrays are too large.
    """
    claimed = 4 * sum(math.prod(shape) for shape in shapes)
    if claimed > min(LARGEST, _EXPANSION * file_size):
        raise ValueError(f"it claims arrays of {claimed} bytes in a file of {file_size}")


def as_float32(array: np.ndarray) -> np.ndarray:
    """Return an array as float32; numbers beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def from_bfloat16(content: bytes | memoryview) -> np.ndarray:
    """Return the bfloat16 numbers of little-endian bytes as float32: they are the upper halves of such."""
    return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
