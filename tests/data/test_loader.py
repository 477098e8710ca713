from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.schema import AugmentConfig
from fcnlab.core.errors import DataError
from fcnlab.data import Dataset, EvalLoader, Sample, TrainLoader, TrainTransform, normalise, prefetch

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Noise(Dataset):
    """Images of noise, all of different sizes."""

    def __init__(self, count: int, bad: int | None = None, pause: float = 0) -> None:
        self.bad, self.pause = bad, pause
        self.reads: list[int] = []
        self._names = [f"noise-{index}" for index in range(count)]

    @property
    def names(self) -> list[str]:
        return self._names

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        time.sleep(self.pause)
        if index == self.bad:
            raise DataError(f"sample {index} is bad")
        rng = np.random.default_rng(index)
        shape = (40 + index, 50)
        image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        return Sample(image, rng.integers(0, 5, shape).astype(np.uint8), self._names[index])


def loader(dataset: Dataset, **changes) -> TrainLoader:
    augment = AugmentConfig(horizontal_flip=0.5, rotate90=True, scale=[0.8, 1.25], brightness=0.1, contrast=0.1)
    options = {
        "batch_size": 3,
        "crops_per_image": 2,
        "mean": MEAN,
        "std": STD,
        "seed": 1,
        "num_workers": 1,
        **changes,
    }
    return TrainLoader(dataset, options.pop("transform", TrainTransform(augment, 32, 255)), **options)


def same(one, other) -> bool:
    return (
        one.names == other.names
        and np.array_equal(one.images, other.images)
        and np.array_equal(one.labels, other.labels)
    )


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fcnlab-data")]


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 2), min_size=3, max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_normalise_matches_the_formula(height, width, mean, std):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    result = normalise(image, mean, std)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    expected = ((image / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-5)


def test_normalise_into_an_array():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    out = np.full((2, 3, 5, 7), 9, np.float32)
    assert normalise(image, MEAN, STD, out=out[1]).base is out
    np.testing.assert_array_equal(out[1], normalise(image, MEAN, STD))
    assert (out[0] == 9).all()


def test_normalise_takes_a_view_that_is_not_contiguous():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    view = image[1::2, ::-1]
    np.testing.assert_array_equal(normalise(view, MEAN, STD), normalise(view.copy(), MEAN, STD))


def test_batches_have_the_promised_shapes_and_types():
    batches = list(loader(Noise(7)).epoch(0))
    assert len(batches) == loader(Noise(7)).steps_per_epoch == 4
    for batch in batches:
        assert batch.images.shape == (3, 3, 32, 32)
        assert batch.labels.shape == (3, 32, 32)
        assert batch.images.dtype == np.float32
        assert batch.labels.dtype == np.int32
        assert len(batch.names) == 3


@pytest.mark.parametrize(
    ("count", "batch_size", "crops", "steps"), [(6, 3, 1, 2), (7, 3, 1, 2), (7, 3, 2, 4), (2, 8, 1, 1), (1, 5, 3, 1)]
)
def test_an_epoch_visits_every_sample_equally_often(count, batch_size, crops, steps):
    train = loader(Noise(count), batch_size=batch_size, crops_per_image=crops)
    assert train.steps_per_epoch == steps
    batches = list(train.epoch(0))
    assert len(batches) == steps
    visits = Counter(name for batch in batches for name in batch.names)
    assert sum(visits.values()) == steps * batch_size
    if count * crops >= batch_size:
        assert max(visits.values()) <= crops
    else:
        assert max(visits.values()) - min(visits[f"noise-{index}"] for index in range(count)) <= crops


def test_repeated_samples_in_a_small_set_are_different_crops():
    (batch,) = loader(Noise(1), batch_size=4, crops_per_image=1).epoch(0)
    assert len({image.tobytes() for image in batch.images}) == 4


def test_crops_are_normalised_transforms_of_their_samples():
    def corner(sample: Sample, rng: np.random.Generator) -> Sample:
        return Sample(sample.image[:32, :32], sample.label[:32, :32], sample.name)

    dataset = Noise(5)
    for batch in loader(dataset, transform=corner).epoch(3):
        for image, label, name in zip(*batch, strict=True):
            sample = dataset[dataset.names.index(name)]
            np.testing.assert_allclose(
                image.transpose(1, 2, 0), (sample.image[:32, :32] / 255 - MEAN) / STD, rtol=1e-4, atol=1e-5
            )
            np.testing.assert_array_equal(label, sample.label[:32, :32])


@pytest.mark.parametrize("changes", [{"num_workers": 2}, {"num_workers": 5}, {"prefetch": 1}, {"prefetch": 50}])
def test_data_do_not_depend_on_workers_or_prefetch(changes):
    reference = list(loader(Noise(11)).epoch(2))
    other = list(loader(Noise(11), **changes).epoch(2))
    assert len(reference) == len(other) == 7
    assert all(same(*pair) for pair in zip(reference, other, strict=True))


@pytest.mark.parametrize("start", [0, 1, 4, 7])
def test_start_step_skips_without_changing_the_rest(start):
    dataset = Noise(11)
    reference = list(loader(Noise(11)).epoch(2))
    resumed = list(loader(dataset).epoch(2, start_step=start))
    assert len(resumed) == 7 - start
    assert all(same(*pair) for pair in zip(reference[start:], resumed, strict=True))
    assert len(dataset.reads) == 3 * (7 - start)


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(3, 12),
    batch_size=st.integers(1, 7),
    workers=st.integers(1, 7),
    epoch=st.integers(0, 2),
    batches=st.integers(1, 2),
    start=st.integers(0, 1),
)
def test_the_shares_of_several_workers_are_the_batches_of_one(count, batch_size, workers, epoch, batches, start):
    def corner(sample: Sample, rng: np.random.Generator) -> Sample:
        x = int(rng.integers(0, 18))
        return Sample(sample.image[:32, x : x + 32], sample.label[:32, x : x + 32], sample.name)

    options = {"batch_size": batch_size, "transform": corner, "batches_per_step": batches}
    whole = list(loader(Noise(count), **options).epoch(epoch, start))
    shares = []
    for rank in range(workers):
        place = range(batch_size * rank // workers, batch_size * (rank + 1) // workers)
        if len(place):
            shares.append(list(loader(Noise(count), **options, share=place).epoch(epoch, start)))
    assert all(len(share) == len(whole) for share in shares)
    for batch, *parts in zip(whole, *shares, strict=True):
        assert batch.names == tuple(name for part in parts for name in part.names)
        np.testing.assert_array_equal(batch.images, np.concatenate([part.images for part in parts]))
        np.testing.assert_array_equal(batch.labels, np.concatenate([part.labels for part in parts]))


def test_seeds_and_epochs_give_other_orders_and_other_crops():
    runs = [list(loader(Noise(11), seed=seed).epoch(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(name for batch in run for name in batch.names) for run in runs}) == 4
    assert len({run[0].images.tobytes() for run in runs}) == 4


def test_the_order_and_every_crop_have_streams_of_their_own():
    drawn = []

    def record(sample: Sample, rng: np.random.Generator) -> Sample:
        drawn.append(rng.bytes(16))
        return Sample(sample.image[:32, :32], sample.label[:32, :32], sample.name)

    train = loader(Noise(12), transform=record)
    for epoch in range(3):
        list(train.epoch(epoch))
    assert len(set(drawn)) == len(drawn) == 3 * 24
    # numpy pads (seed, epoch) with zeros, so that the first crop could share the order's stream.
    assert not {np.random.default_rng((1, epoch)).bytes(16) for epoch in range(3)} & set(drawn)
    assert not {train._generator(epoch).bytes(16) for epoch in range(3)} & set(drawn)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_worker_reaches_the_consumer_at_its_turn(workers):
    reference = list(loader(Noise(11)).epoch(0))
    bad = int(reference[3].names[1].split("-")[1])
    first = next(step for step, batch in enumerate(reference) if f"noise-{bad}" in batch.names)
    received = []
    with pytest.raises(DataError, match=f"sample {bad} is bad"):
        received.extend(loader(Noise(11, bad=bad), num_workers=workers).epoch(0))
    assert len(received) == first
    assert all(same(*pair) for pair in zip(received, reference, strict=False))
    assert not running()


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_early_leaves_no_thread(monkeypatch, workers):
    first = next(loader(Noise(50)).epoch(0)).names
    closing = threading.Event()

    class Waiting(Noise):
        """Reads the samples of the first batch, and the others when the loader is being closed."""

        def __getitem__(self, index):
            assert self.names[index] in first or closing.wait(60)
            return super().__getitem__(index)

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closing.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(prefetch, "ThreadPoolExecutor", Pool)
    dataset = Waiting(50)
    epoch = loader(dataset, num_workers=workers, prefetch=20).epoch(0)
    assert not running()
    next(epoch)
    assert running()
    epoch.close()
    assert not running()
    # What was waiting is cancelled: only the first batch and those that were begun have been read.
    assert 3 <= len(dataset.reads) <= 3 * (1 + workers)


def test_a_loop_that_is_broken_or_interrupted_leaves_no_thread():
    def consume(loader_, error: type[BaseException] | None) -> None:
        for _ in loader_:
            if error:
                raise error
            break

    for make in (lambda: loader(Noise(50)).epoch(0), lambda: EvalLoader(Noise(50), mean=MEAN, std=STD)):
        consume(make(), None)
        assert not running()
        try:
            consume(make(), KeyboardInterrupt)
        except KeyboardInterrupt as interrupt:
            interrupt.__traceback__ = None  # which holds the frame, and with it the iterator
        assert not running()


def test_look_ahead_is_bounded():
    dataset = Noise(100)
    epoch = loader(dataset, batch_size=1, crops_per_image=1, prefetch=4).epoch(0)
    for expected in (5, 6):
        next(epoch)
        deadline = time.monotonic() + 60
        while len(dataset.reads) < expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # for one too many
        assert len(dataset.reads) == expected
    epoch.close()


def test_an_empty_data_set_is_refused():
    with pytest.raises(DataError, match="empty"):
        loader(Noise(0))


def test_eval_loader_yields_whole_images_in_order():
    dataset = Noise(9)
    evaluation = EvalLoader(dataset, mean=MEAN, std=STD)
    assert len(evaluation) == 9
    for _ in range(2):
        batches = list(evaluation)
        assert [batch.names for batch in batches] == [(name,) for name in dataset.names]
        for index, batch in enumerate(batches):
            sample = evaluation.raw(index)
            assert batch.images.shape == (1, 3, 40 + index, 50)
            assert batch.labels.dtype == np.int32
            np.testing.assert_array_equal(batch.images[0], normalise(sample.image, MEAN, STD))
            np.testing.assert_array_equal(batch.labels[0], sample.label)
    assert not running()


def test_eval_loader_passes_errors_on():
    received = []
    with pytest.raises(DataError, match="sample 4 is bad"):
        received.extend(EvalLoader(Noise(9, bad=4), mean=MEAN, std=STD))
    assert [batch.names[0] for batch in received] == [f"noise-{index}" for index in range(4)]
    assert not running()


def test_eval_loader_raw_is_the_sample():
    dataset = Noise(3)
    sample = EvalLoader(dataset, mean=MEAN, std=STD).raw(1)
    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(sample.image, dataset[1].image)


def test_repeats_are_how_often_samples_come():
    dataset = Noise(4)
    repeats = np.array([1.0, 1.0, 1.0, 3.0])
    batches = loader(dataset, repeats=repeats, crops_per_image=60, batch_size=8)
    seen = Counter(name for epoch in range(3) for batch in batches.epoch(epoch) for name in batch.names)
    total = sum(seen.values())
    for name, expected in zip(dataset.names, repeats / repeats.sum(), strict=True):
        assert seen[name] / total == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("workers", [2, 4])
def test_every_transform_gives_the_same_for_any_number_of_workers_and_from_any_step(workers):
    augment = AugmentConfig(rotation=20, elastic=2, gamma=[0.8, 1.2], blur=1, noise=0.05, class_crops=0.5, hue=0.1)
    options = {"transform": TrainTransform(augment, 32, 255), "repeats": np.arange(1.0, 7.0)}
    expected = list(loader(Noise(6), **options).epoch(3))
    found = list(loader(Noise(6), **options, num_workers=workers).epoch(3, start_step=2))
    assert all(same(one, other) for one, other in zip(found, expected[2:], strict=True))
