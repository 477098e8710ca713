"""Memory that has run out is recognised in the words of every library, and nothing else is."""

import errno
import subprocess
import sys
import threading
import time

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


@pytest.mark.usefixtures("forked_python")
def test_what_is_left_of_the_address_space():
    code = (
        "import resource; from pathlib import Path; from fcnlab.core import memory\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, -1)); print(memory.address_space_left())"
    )
    left = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=1800).stdout)
    assert 2**30 < left <= 2**31


def test_what_is_asked_for_again_and_again_is_done_once_afterwards():
    times, done = [], threading.Event()
    release = memory.Release(0.3, lambda: (times.append(time.monotonic()), done.set()))
    for _ in range(5):
        release.soon()
        last = time.monotonic()
        time.sleep(0.02)
    assert done.wait(20)
    time.sleep(0.4)
    assert len(times) == 1
    assert times[0] - last >= 0.29  # another clock measures the waiting, and ends it a little sooner


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other C libraries")
@pytest.mark.usefixtures("forked_python")
def test_freed_memory_goes_back_to_the_system():
    code = (
        "import json; from pathlib import Path; from fcnlab.core import memory\n"
        "rss = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 2**20\n"
        "text = json.dumps([[[1.5, 2.5, n] for n in range(100)] for _ in range(5000)])\n"
        "before = rss(); held = json.loads(text); most = rss(); keep = held[2500]; del held\n"
        "memory.release_unused(); print(most - before, rss() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=1800)
    most, left = map(float, done.stdout.split())
    assert left < most / 2
