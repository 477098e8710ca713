"""Memory that has run out is recognised in the words of every library, and nothing else is."""

import errno
import subprocess
import sys

import cv2
import pytest

from fcnlab.core import memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("For 'Conv2D', malloc for kernel output failed, Memory isn't enough, node:Default/Conv2D-op1"),
        RuntimeError("Device(id:0) memory isn't enough and alloc failed, kernel name: Adam, alloc size: 411041792B."),
        RuntimeError("Allocate memory failed, the size is 1073741824"),
        RuntimeError("can't start new thread"),
        cv2.error("OpenCV(4.11.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    ],
)
def test_what_says_so(error):
    assert memory.has_run_out(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Unknown Error!"),
        RuntimeError("the learning rate is not enough"),
        RuntimeError("For 'MatMul', the shapes do not fit"),
        ValueError("out of memory"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
    ],
)
def test_what_does_not(error):
    assert not memory.has_run_out(error)


def test_what_says_nothing_counts_where_the_address_space_is_used_up(monkeypatch):
    error = RuntimeError("Unknown Error!")
    monkeypatch.setattr(memory, "address_space_left", lambda: 2**26)
    assert memory.has_run_out(error)
    monkeypatch.setattr(memory, "address_space_left", lambda: 2**33)
    assert not memory.has_run_out(error)


def test_what_is_left_of_the_address_space():
    code = "from fcnlab.core import memory; print(memory.address_space_left())"
    limited = ["sh", "-c", f"ulimit -v 4000000; exec {sys.executable} -c '{code}'"]
    left = int(subprocess.run(limited, capture_output=True, check=True, timeout=60).stdout)
    assert 2**30 < left < 4_000_000 * 1024
