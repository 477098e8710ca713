from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from counting_dataset import Counting

from fcnlab.core.errors import DataError
from fcnlab.data import Cached, Sample


def test_cached_reads_once_within_the_limit():
    inner = Counting(3)
    cached = Cached(inner, limit_mib=10)
    for _ in range(4):
        for index in range(3):
            assert cached[index].name == str(index)
            assert (cached[index].image == index).all()
    assert inner.reads == [1, 1, 1]
    assert cached.names == inner.names
    assert len(cached) == 3


def test_cached_reads_through_beyond_the_limit():
    inner = Counting(6)
    cached = Cached(inner, limit_mib=0.7)  # two samples of 0.29 MiB
    for _ in range(3):
        for index in range(6):
            assert (cached[index].label == index).all()
    assert inner.reads == [1, 1, 3, 3, 3, 3]
    assert cached.nbytes == 2 * 256 * 300 * 4 <= 0.7 * 2**20


def test_cached_with_limit_zero_keeps_nothing():
    inner = Counting(2)
    cached = Cached(inner, limit_mib=0)
    assert cached[0].name == cached[0].name
    assert inner.reads[0] == 2
    assert cached.nbytes == 0


def test_cached_samples_cannot_be_written_to():
    cached = Cached(Counting(1), limit_mib=10)
    with pytest.raises(ValueError, match="read-only"):
        cached[0].image[0, 0, 0] = 9


def test_cached_negative_and_out_of_range_indices():
    inner = Counting(3)
    cached = Cached(inner, limit_mib=10)
    assert cached[-1].name == "2"
    assert cached[2].name == "2"
    assert inner.reads[2] == 1
    with pytest.raises(IndexError):
        cached[3]


def test_cached_check_keeps_what_it_reads():
    inner = Counting(6)
    cached = Cached(inner, limit_mib=1.5)  # five samples
    cached.check()
    assert inner.reads == [1] * 6
    assert cached.nbytes == 5 * 256 * 300 * 4
    assert [(sample.label == index).all() for index, sample in enumerate(cached)] == [True] * 6
    assert sum(inner.reads) == 7


def test_cached_check_raises_for_the_first_bad_sample_in_order():
    class Late(Counting):
        """A data set whose samples from 2 on are bad, of which 2 fails last."""

        def __getitem__(self, index: int) -> Sample:
            if index == 2:
                time.sleep(0.2)
            if index >= 2:
                raise DataError(f"sample {index} is bad")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="sample 2 is bad"):
        Cached(Late(9), limit_mib=10).check()


def test_cached_leaves_the_check_to_a_data_set_that_has_its_own():
    class Own(Counting):
        def check(self) -> None:
            raise DataError("the archive is damaged")

    inner = Own(3)
    with pytest.raises(DataError, match="archive is damaged"):
        Cached(inner, limit_mib=10).check()
    assert inner.reads == [0] * 3


def test_cached_fingerprint_does_not_read_again_what_the_check_kept():
    inner = Counting(3)
    cached = Cached(inner, limit_mib=10)
    cached.check()
    assert cached.fingerprint() == Counting(3).fingerprint()
    assert inner.reads == [1] * 3


def test_cached_from_many_threads_stays_within_its_limit():
    inner = Counting(8)
    cached = Cached(inner, limit_mib=1.5)  # five samples
    wrong = []

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 8, 100):
            if not (cached[int(index)].label == index).all():
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cached.nbytes == 5 * 256 * 300 * 4
