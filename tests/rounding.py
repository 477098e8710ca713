"""The numbers of lower precision that are nearest to given ones."""

import numpy as np


def bfloat16(values):
    """Round float32 to the nearest bfloat16, of two to the even one, by its bits (IEEE 754, section 4.3.1)."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)


def float16(values):
    """Round to the nearest float16, and return it as float32."""
    return np.asarray(values).astype(np.float16).astype(np.float32)
