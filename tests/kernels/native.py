"""Calls the compiled library without MindSpore, with numpy arrays."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fcnlab.kernels import build

TARGET = os.environ.get("FCNLAB_TEST_AARCH64")
"""The processor that the operators are compiled for and emulated, as ``-mcpu`` names it; this machine's if not set."""


@functools.cache
def load():
    """Return the operators of this machine's processor or of the one that ``FCNLAB_TEST_AARCH64`` names."""
    return Emulated(TARGET) if TARGET else Native(build.build())


class Native:
    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    @contextmanager
    def threads(self, count):
        """Compute with that number of threads in the block, however many processors there are."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("FCNLAB_NUM_THREADS", raising=False)
            self.use_threads(count)
            try:
                yield
            finally:
                self.use_threads(0)

    def use_threads(self, count):
        self.library.use_threads(ctypes.c_int64(count))

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


class Emulated(Native):
    """The same for AArch64, compiled by Debian's cross compiler and run by QEMU, which stays for all calls."""

    def __init__(self, processor):
        self._guard = threading.Lock()
        sources = [*Path(build.__file__).parent.glob("*.cpp"), Path(__file__).with_name("caller.cpp")]
        program = Path(tempfile.mkdtemp(prefix="fcnlab-aarch64-")) / "caller"
        flags = [*build.FLAGS, f"-mcpu={processor}", "-rdynamic"]
        subprocess.run(["aarch64-linux-gnu-g++", *flags, "-o", program, *sources, "-ldl"], check=True)
        qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
        command = [qemu, "-cpu", "max", "-L", "/usr/aarch64-linux-gnu", program]
        environment = {name: value for name, value in os.environ.items() if name != "FCNLAB_NUM_THREADS"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def use_threads(self, count):
        self._call("use_threads", [], (count,))

    def __call__(self, function, inputs, shape):
        return self._call(function, [np.ascontiguousarray(array, np.float32) for array in inputs], shape)

    def _call(self, function, inputs, shape):
        shapes = [*(array.shape for array in inputs), tuple(shape)]
        numbers = [len(shapes)]
        for sizes in shapes:
            numbers += [len(sizes), *sizes]
        name = function.encode()
        with self._guard:
            self._process.stdin.write(np.int64(len(name)).tobytes() + name + np.array(numbers, np.int64).tobytes())
            for array in inputs:
                self._process.stdin.write(array.tobytes())
            self._process.stdin.flush()
            answer = np.frombuffer(self._process.stdout.read(8), np.int64)
            result = np.frombuffer(self._process.stdout.read(4 * int(np.prod(shape))), np.float32)
        assert answer == 0
        return result.reshape(shape)


def assert_same_bits_on_any_number_of_threads(native, compute, numbers=(1, 2, 7)):
    """Check that the number of threads does not change the arrays that ``compute`` returns."""
    results = []
    for number in numbers:
        with native.threads(number):
            results.append(compute())
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, second)
