from __future__ import annotations

import threading

import numpy as np
import pytest
from counting_dataset import Counting

from fcnlab.core.errors import DataError
from fcnlab.data import Cached, Dataset, Sample


def test_check_raises_for_the_first_bad_sample():
    with pytest.raises(DataError, match="sample 3 is bad"):
        Counting(50, bad=3).check()
    Counting(5).check()


def test_check_leaves_no_thread_behind():
    with pytest.raises(DataError):
        Counting(50, bad=3).check()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fcnlab-data")]


class Given(Dataset):
    """The samples it is given."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples

    @property
    def names(self) -> list[str]:
        return [sample.name for sample in self.samples]

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def test_default_fingerprint_changes_with_names_pixels_shapes_and_order():
    rng = np.random.default_rng(0)
    one, other = (
        Sample(rng.integers(0, 256, (4, 6, 3)).astype(np.uint8), rng.integers(0, 2, (4, 6)).astype(np.uint8), name)
        for name in "ab"
    )
    image, label = one.image.copy(), one.label.copy()
    image[3, 5, 2] ^= 1
    label[3, 5] ^= 1
    datasets = [
        Given(one, other),
        Given(other, one),
        Given(one),
        Given(one, other, other),
        Given(one._replace(name="c"), other),
        Given(one._replace(image=image), other),
        Given(one._replace(label=label), other),
        Given(Sample(one.image.reshape(6, 4, 3), one.label.reshape(6, 4), "a"), other),
        Given(one._replace(image=other.image), other._replace(image=one.image)),
    ]
    found = [dataset.fingerprint() for dataset in datasets]
    assert len(set(found)) == len(found)
    assert all(len(text) == 32 and set(text) <= set("0123456789abcdef") for text in found)
    # The same pixels, but not in one piece of memory.
    strided = Sample(np.repeat(one.image, 2, axis=1)[:, ::2], np.asfortranarray(one.label), "a")
    assert Given(strided, other).fingerprint() == found[0]


def test_default_fingerprint_raises_for_the_first_bad_sample():
    with pytest.raises(DataError, match="sample 3 is bad"):
        Counting(9, bad=3).fingerprint()


def test_source_is_the_class_name_unless_the_data_set_says_more():
    class Told(Counting):
        source = "a shelf in the cellar"

    assert Counting(1).source == Cached(Counting(1), limit_mib=1).source == "Counting"
    assert Cached(Told(1), limit_mib=1).source == "a shelf in the cellar"
