"""Calls the compiled library without MindSpore, with numpy arrays."""

import ctypes
from contextlib import contextmanager

import numpy as np
import pytest


class Native:
    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    @contextmanager
    def threads(self, count):
        """Compute with that number of threads in the block, however many processors there are."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("FCNLAB_NUM_THREADS", raising=False)
            self.library.use_threads(ctypes.c_int64(count))
            try:
                yield
            finally:
                self.library.use_threads(ctypes.c_int64(0))

    def __call__(self, function, inputs, shape):
        """Call a function that fills a new array of ``shape``, and return that."""
        arrays = [np.ascontiguousarray(array, np.float32) for array in inputs]
        arrays.append(np.full(shape, np.nan, np.float32))
        count = len(arrays)
        sizes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
        data = (ctypes.c_void_p * count)(*[array.ctypes.data for array in arrays])
        dimensions = (ctypes.c_int * count)(*[array.ndim for array in arrays])
        shapes = (ctypes.c_void_p * count)(*[ctypes.addressof(size) for size in sizes])
        assert getattr(self.library, function)(count, data, dimensions, shapes, None, None, None) == 0
        return arrays[-1]


def assert_same_bits_on_any_number_of_threads(native, compute, numbers=(1, 2, 7)):
    """Check that the number of threads does not change the arrays that ``compute`` returns."""
    results = []
    for number in numbers:
        with native.threads(number):
            results.append(compute())
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, second)
