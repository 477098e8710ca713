"""The threads that share an operator's work: on many cores, for several callers at a time, and in forked processes."""

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from native import TARGET, assert_same_bits_on_any_number_of_threads, load


@pytest.fixture(scope="module")
def native():
    return load()


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


OF_THIS_PROCESS = pytest.mark.skipif(TARGET is not None, reason="it is about the threads of this process")

IMAGES, WEIGHT = random(2, 20, 24, 40), random(18, 20, 3, 3)


def weight_gradient(native, images=IMAGES):
    return native("conv3x3_weight_gradient", [images, random(*images.shape[:1], 18, *images.shape[2:])], WEIGHT.shape)


def everything(native):
    """Return what each of the operators that divide their work differently computes."""
    map_, kernel = random(2, 5, 9, 12), random(5, 4, 8, 8)
    statistics, gamma, beta = np.abs(random(2, 20)), random(20), random(20)
    return [
        native("conv3x3", [IMAGES, WEIGHT], (2, 18, 24, 40)),
        weight_gradient(native),
        native("direct_convolution", [random(2, 40, 8, 8), random(50, 40, 7, 7), random(50)], (2, 50, 8, 8)),
        native("upsampling", [map_, kernel], (2, 4, 36, 48)),
        native("upsampling_weight_gradient", [map_, random(2, 4, 36, 48), kernel], kernel.shape),
        native("channel_statistics", [IMAGES], (2, 20)),
        native("norm_relu_pool", [IMAGES, statistics, gamma, beta], (2, 20, 12, 20)),
        native("norm_relu_sums", [IMAGES, random(*IMAGES.shape), statistics, gamma, beta], (2, 20)),
    ]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sixteen_and_sixty_four_threads_compute_the_same_bits(native):
    assert_same_bits_on_any_number_of_threads(native, lambda: everything(native), (1, 16, 64))


def callers(native, count, calls):
    """Compute in several threads at a time, and return how many results were right."""
    with native.threads(1):
        expected = weight_gradient(native)

    def call(_):
        return np.array_equal(weight_gradient(native), expected)

    with native.threads(64), ThreadPoolExecutor(count) as pool:
        return sum(pool.map(call, range(calls)))


def test_several_callers_at_a_time(native):
    assert callers(native, 4, 24) == 24


def test_more_callers_at_a_time_than_there_are_places(native):
    """Those who find no place among the sixteen compute alone."""
    assert callers(native, 40, 120) == 120


def processor_time_of_a_sleep():
    began = time.process_time()
    time.sleep(0.4)
    return time.process_time() - began


@OF_THIS_PROCESS
@pytest.mark.parametrize("spinning", [0, 1])
def test_threads_without_work_sleep(native, spinning):
    """They stay awake for a tenth of a millisecond at most, and are there again for the next call."""
    native.library.let_threads_spin(ctypes.c_int64(spinning))
    try:
        with native.threads(2):
            expected = weight_gradient(native)
            # Threads that other tests left may work meanwhile; one that stayed awake would take all of the time.
            taken = min(processor_time_of_a_sleep() for _ in range(3))
            np.testing.assert_array_equal(weight_gradient(native), expected)
    finally:
        native.library.let_threads_spin(ctypes.c_int64(1))
    assert taken < 0.2


@pytest.mark.slow
def test_many_callers_for_long(native):
    assert callers(native, 16, 4000) == 4000


@OF_THIS_PROCESS
def test_a_forked_process_has_threads_of_its_own(native):
    """The child has none of the threads that wait in its parent, and must not wait for them."""
    with native.threads(8):
        expected = everything(native)
        if (child := os.fork()) == 0:
            try:
                assert_equal(everything(native), expected)
                os._exit(0)
            finally:
                os._exit(1)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    if done[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert done == (child, 0)


def threads_of_this_process():
    return len(os.listdir("/proc/self/task"))


@OF_THIS_PROCESS
def test_threads_are_as_many_as_was_said_and_do_not_add_up(native, monkeypatch):
    inputs = [random(5, 20, 8, 8), np.abs(random(2, 20)), random(20), random(20)]  # a task for each of 100 planes

    def compute():
        native("norm_relu", inputs, inputs[0].shape)
        return threads_of_this_process()

    with native.threads(90):  # more than any other test has made
        before = threads_of_this_process()
        monkeypatch.setenv("FCNLAB_NUM_THREADS", "1")
        assert compute() == before
        monkeypatch.setenv("FCNLAB_NUM_THREADS", "95")
        assert before < (whole := compute()) <= before + 89
        assert [compute() for _ in range(5)] == [whole] * 5
