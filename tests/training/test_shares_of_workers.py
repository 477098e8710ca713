"""The shares of several workers train like the whole batch, with the exchange between them played by this test."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest.mock import Mock

import mindspore as ms
import numpy as np
import pytest
from added_losses import LOSSES, VOID, WEIGHTS
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor, nn
from small_network import small_network

from fcnlab.core.errors import ConfigError
from fcnlab.core.workers import Message, WorkerLostError, Workers
from fcnlab.data import Dataset, EvalLoader, Sample
from fcnlab.data.loader import Batch
from fcnlab.losses import CrossEntropy, Dice
from fcnlab.training import parallel
from fcnlab.training.dropout import DropoutMasks
from fcnlab.training.evaluation import Evaluator
from fcnlab.training.loss_scaling import LossScale
from fcnlab.training.mixed_precision import MixedPrecision
from fcnlab.training.optimizers import SGD
from fcnlab.training.parallel import ParallelStep, ParallelUpdates, bundles
from fcnlab.training.step import TrainStep


class Played(Workers):
    """One of several workers; what the others tell is given to it."""

    def __init__(self, rank, count, others=()):
        self.rank, self.count = rank, count
        self.others = list(others)
        self.told = []

    def exchange(self, content=None, *arrays):
        self.told.append(Message(content, arrays))
        others = list(self.others[len(self.told) - 1]) if self.others else [self.told[-1]] * (self.count - 1)
        return [*others[: self.rank], self.told[-1], *others[self.rank :]]


class OtherSums(nn.Cell):
    """Stands for `parallel.Sum`: adds what the other workers have given, and keeps what this one gives."""

    def __init__(self, shapes):
        super().__init__(auto_prefix=False)
        self.others = []

    def construct(self, tensors):
        self.given = [tensor.asnumpy() for tensor in tensors]
        return tuple(
            Tensor(sum([own, *(other[index] for other in self.others)])) for index, own in enumerate(self.given)
        )


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    monkeypatch.setattr(parallel, "Sum", OtherSums)


def whole_batch():
    """Five images with very different numbers of void pixels; the last one has no other."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((5, 3, 16, 16), dtype=np.float32)
    labels = (generator.random((5, 4, 4)) < np.array([0.1, 0.9, 0.5, 0.3, 0.5])[:, None, None]).astype(np.int32)
    labels[0, :3] = labels[2, 1] = labels[4] = VOID
    return Batch(images, labels, tuple("abcde"))


def updates_of(rank, count, make_loss, norm="none", others=(), clip_norm=None, scale=None, level=None):
    network = small_network(norm)
    optimizer = SGD(network.trainable_params(), weight_decay=0.01, momentum=0.9)
    played = Played(rank, count, others)
    options = {"guarded": scale is not None, "loss_scale": scale and LossScale(scale)}
    network = network if level is None else MixedPrecision(network, level)
    step = ParallelStep(network, make_loss(), optimizer, clip_norm, **options, batch_size=5, workers=played)
    return ParallelUpdates(step, DropoutMasks(network, 0), VOID), step, played


def share_of(batch, rank, count):
    place = Played(rank, count).share(5)
    return Batch(*(part[place.start : place.stop] for part in batch))


def trained_by(count, make_loss, norm="none", clip_norm=None, scale=None, level=None):
    """Make one update by several workers; return the outcome and the step of the first one."""
    options = {"scale": scale, "level": level}
    nothing = np.zeros(2 if scale is None else 3)
    batch, told, given = whole_batch(), [], []
    for rank in range(1, count):  # what the others would do is known before the first one does it
        busy = [[Message(False, ())] * (count - 1), [Message([True, None, []], (nothing,))] * (count - 1)]
        updates, step, played = updates_of(rank, count, make_loss, norm, busy, **options)
        updates.add(share_of(batch, rank, count), 0)
        updates.finish(0.5)
        told.append(played.told)
        given.append(step)
    sums = [messages[1].arrays[0] for messages in told]
    updates, step, played = updates_of(0, count, make_loss, norm, list(zip(*told, strict=True)), clip_norm, **options)
    updates.add(share_of(batch, 0, count), 0)
    sums.append(updates._sums)
    for other in given:  # each scales its gradients by the sums of all, which it did not know above
        scale = 5 * 16 / float(step.loss.divisor(Tensor(sum(sums)[:2], ms.float32)).asnumpy())
        gradients = [gradient.asnumpy() * scale for gradient in other._gradients]
        step.application.sum.others.append([*gradients, *other.application.sum.given[len(gradients) :]])
    return updates.finish(0.5), step


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("name", "clip_norm"), [("mean", None), ("weighted mean", 0.01), ("focal", None)])
def test_shares_train_like_the_whole_batch(name, clip_norm, count):
    network, batch = small_network("none"), whole_batch()
    optimizer = SGD(network.trainable_params(), weight_decay=0.01, momentum=0.9)
    whole = TrainStep(network, LOSSES[name](), optimizer, clip_norm)
    loss = whole(Tensor(batch.images), Tensor(batch.labels), Tensor(0.5, ms.float32))
    outcome, step = trained_by(count, LOSSES[name], clip_norm=clip_norm)
    np.testing.assert_allclose(outcome.loss, float(loss.asnumpy()), rtol=1e-6)
    assert outcome.names == batch.names
    for parameter, expected in zip(step.optimizer.parameters, whole.optimizer.parameters, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**16])
def test_a_scale_of_the_loss_changes_no_update(scale):
    plain, scaled = (trained_by(2, LOSSES["weighted mean"], clip_norm=0.01, scale=value) for value in (None, scale))
    assert scaled[0] == plain[0]
    for parameter, expected in zip(scaled[1].optimizer.parameters, plain[1].optimizer.parameters, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected.asnumpy(), rtol=1e-6, atol=1e-7)
    assert "loss_scale.scale" in scaled[1].state()  # so that it is saved, and compared between workers


@pytest.mark.parametrize("level", ["O2", "O3", "bf16"])
def test_shares_in_less_precision_train_like_the_whole_batch_in_it(level):
    network, batch = small_network("group"), whole_batch()
    optimizer, scale = SGD(network.trainable_params(), weight_decay=0.01, momentum=0.9), 2.0**10
    guarded = {"guarded": True, "loss_scale": LossScale(scale)}
    whole = TrainStep(MixedPrecision(network, level), LOSSES["mean"](), optimizer, **guarded)
    loss = whole(Tensor(batch.images), Tensor(batch.labels), Tensor(0.5, ms.float32)).asnumpy()
    assert np.isfinite(loss).all()
    outcome, step = trained_by(2, LOSSES["mean"], norm="group", scale=scale, level=level)
    assert not outcome.overflow
    np.testing.assert_allclose(outcome.loss, loss[0], rtol=1e-2)
    for parameter, expected in zip(step.optimizer.parameters, whole.optimizer.parameters, strict=True):
        moved = np.abs(expected.asnumpy()).max()
        np.testing.assert_allclose(parameter.asnumpy(), expected.asnumpy(), rtol=2e-2, atol=2e-2 * moved)


def parameters_of(step):
    return {name: parameter.asnumpy().copy() for name, parameter in step.state().items()}


def test_gradients_that_overflow_in_one_worker_stop_the_step_in_all():
    batch = whole_batch()
    busy = [[Message(False, ())], [Message([True, None, ["a", "b"]], (np.array([3.0, 5.0, 0.0]),))]]
    updates, step, at_fault = updates_of(1, 2, LOSSES["mean"], "batch", busy, scale=2.0**24, level="O2")
    before = parameters_of(step)
    updates.add(share_of(batch, 1, 2), 0)
    outcome = updates.finish(0.5)
    told = at_fault.told[1]
    assert np.isfinite(told.arrays[0][:2]).all()  # the loss is, and no gradient
    assert np.isnan(told.arrays[0][2])
    assert told.content[1] is None
    # The other worker has found nothing itself.
    others = [[at_fault.told[0]], [told]]
    well, other, _ = updates_of(0, 2, LOSSES["mean"], "batch", others, scale=2.0**24)
    well.add(share_of(batch, 0, 2), 0)
    assert np.isfinite(well._sums).all()
    well._sums = np.array([3.0, 5.0, 0.0])
    same = well.finish(0.5)
    assert outcome.overflow
    assert same.overflow
    assert outcome.loss == same.loss == pytest.approx((3.0 + told.arrays[0][0]) / (5.0 + told.arrays[0][1]))
    for found in (step, other):
        for name, value in parameters_of(found).items():
            np.testing.assert_array_equal(value, before[name])


def test_a_sum_of_finite_gradients_that_is_not_finite_stops_the_step():
    others = [[Message(False, ())], [Message([True, None, []], (np.array([1.0, 5.0, 0.0]),))]]
    updates, step, _ = updates_of(0, 2, LOSSES["mean"], "batch", others, scale=1024.0)
    before = parameters_of(step)
    updates.add(share_of(whole_batch(), 0, 2), 0)
    step.application.sum.others.append([np.full(tensor.shape, np.inf, np.float32) for tensor in step._gradients])
    step.application.sum.others[0] += [np.zeros(item.shape, np.float32) for item in step.application.statistics]
    outcome = updates.finish(0.5)
    assert outcome.overflow
    assert np.isfinite(outcome.loss)
    for name, value in parameters_of(step).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_sum_over_pixels_stays_a_sum():
    batch = whole_batch()
    mean, total = trained_by(2, LOSSES["weighted mean"]), trained_by(2, LOSSES["weighted sum"])
    counted = batch.labels[batch.labels != VOID]
    np.testing.assert_allclose(total[0].loss, mean[0].loss * np.array(WEIGHTS)[counted].sum(), rtol=1e-6)


def test_unsynchronised_moving_statistics_become_the_mean_weighted_by_images():
    _, step = trained_by(2, LOSSES["mean"], norm="batch")
    own, (other,) = step.application.sum.given, step.application.sum.others
    count = len(step._gradients)
    statistics = [parameter.asnumpy() for parameter in step.application.statistics]
    assert len(statistics) == 4
    for mean, first, second in zip(statistics, own[count:], other[count:], strict=True):
        np.testing.assert_allclose(mean, first + second, rtol=1e-6)
    # The variance began as 1 in both workers, which have 2 and 3 of the images, so that 0.9 of it is in the mean.
    assert (statistics[1] > 0.9).all()


def test_a_batch_that_is_void_in_all_workers_changes_nothing():
    updates, step, _ = updates_of(0, 2, LOSSES["mean"], "batch")
    before = {name: parameter.asnumpy().copy() for name, parameter in step.state().items()}
    batch = share_of(whole_batch(), 0, 2)
    updates.add(batch._replace(labels=np.full_like(batch.labels, VOID)), 0)
    assert updates.finish(0.5).loss == 0
    for name, parameter in step.state().items():
        np.testing.assert_array_equal(parameter.asnumpy(), before[name])


def test_a_loss_that_is_not_finite_in_another_worker_is_everybodys():
    others = [[Message(False, ())], [Message([True, ["nan", "x"], ["x", "y"]], (np.array([np.nan, 1.0]),))]]
    updates, step, _ = updates_of(0, 2, LOSSES["mean"], "batch", others)
    before = {name: parameter.asnumpy().copy() for name, parameter in step.state().items()}
    updates.add(share_of(whole_batch(), 0, 2), 0)
    outcome = updates.finish(0.5)
    assert np.isnan(outcome.loss)
    assert outcome.names == ("x",)
    for name, parameter in step.state().items():
        np.testing.assert_array_equal(parameter.asnumpy(), before[name])


@pytest.mark.parametrize("text", ["Launch kernel failed: AllReduce-op7", "The AllGather timed out"])
def test_a_worker_that_is_gone_within_a_forward_pass_leaves_the_last_whole_step(monkeypatch, text):
    updates, step, _ = updates_of(0, 2, LOSSES["mean"], "batch")
    before = {name: parameter.asnumpy().copy() for name, parameter in step.state().items()}
    add = step.add

    def fail(*inputs):
        add(*inputs)
        raise RuntimeError(text)

    monkeypatch.setattr(step, "add", fail)
    with pytest.raises(WorkerLostError, match=r"statistics of arch\.norm=sync_batch could not be added up"):
        updates.add(share_of(whole_batch(), 0, 2), 0)
    updates.abandon()
    for name, parameter in step.state().items():
        np.testing.assert_array_equal(parameter.asnumpy(), before[name])


def test_another_error_of_a_forward_pass_stays_what_it_is(monkeypatch):
    updates, step, _ = updates_of(0, 2, LOSSES["mean"])
    monkeypatch.setattr(step, "add", Mock(side_effect=RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        updates.add(share_of(whole_batch(), 0, 2), 0)


def test_every_worker_takes_its_images_of_the_masks_of_the_whole_batch():
    class Masked(nn.Cell):
        def dropout_masks(self, shape, generator):
            return generator.random((2, shape[0], 4)) < 0.5

    network = Masked()
    whole = DropoutMasks(network, 3)(7, (5, 3, 16, 16), 1)[0].asnumpy()
    found = []
    for rank in range(3):
        updates = ParallelUpdates(
            SimpleNamespace(batch_size=5, workers=Played(rank, 3), loss_scale=None), DropoutMasks(network, 3), VOID
        )
        share = (len(Played(rank, 3).share(5)), 3, 16, 16)
        found.append(updates._share_of_masks(7, share, 1)[0].asnumpy())
    np.testing.assert_array_equal(np.concatenate(found, axis=1), whole)


def test_a_loss_that_is_no_mean_over_pixels_is_refused():
    network = small_network("none")
    with pytest.raises(ConfigError, match=r"^trainer.parallel=data: the gradients of Dice"):
        ParallelStep(network, Dice(VOID, 2), SGD(network.trainable_params()), batch_size=5, workers=Played(0, 2))


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30), largest=st.integers(1, 60))
def test_bundles_hold_every_tensor_once_in_order(sizes, largest):
    found = bundles(sizes, largest)
    assert [index for bundle in found for index in bundle] == list(range(len(sizes)))
    assert all(len(bundle) == 1 or sum(sizes[index] for index in bundle) <= largest for bundle in found)


class Images(Dataset):
    """Seven images of several sizes, whose pixels are their predictions."""

    @property
    def names(self):
        return [f"image {index}" for index in range(7)]

    def __getitem__(self, index):
        generator = np.random.default_rng(index)
        label = generator.choice([0, 1, 2, VOID], (33 + index, 40)).astype(np.uint8)
        return Sample(generator.integers(0, 256, (*label.shape, 3), dtype=np.uint8), label, self.names[index])


class Predicted:
    """Stands for the compiled evaluation: a prediction and sums that follow from the image."""

    loss = CrossEntropy(VOID, 3)

    def set_train(self, mode):
        pass

    def __call__(self, images, labels):
        values = images.asnumpy()
        return Tensor(np.float32([values.sum(), (labels.asnumpy() != VOID).sum()])), Tensor(
            (np.abs(values).sum(1) * 7).astype(np.int32) % 3
        )


def evaluated(worker):
    pixels = {"mean": [0.5] * 3, "std": [0.25] * 3}
    loader = EvalLoader(Images(), indices=range(worker.rank, 7, worker.count), **pixels)
    names = ["a", "b", "c"]
    options = {"num_classes": 3, "ignore_index": VOID, "class_names": names, "keep": 2, "workers": worker}
    evaluator = Evaluator(small_network(), CrossEntropy(VOID, 3), loader, **options)
    evaluator.step = Predicted()
    return evaluator()


@pytest.mark.parametrize("count", [2, 3, 9])
def test_workers_that_share_the_images_find_what_one_finds(count, connected):
    expected = evaluated(Workers())
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(evaluated, connected(count)))
    for one in found:
        assert one.loss == expected.loss
        np.testing.assert_array_equal(one.confusion.counts, expected.confusion.counts)
        np.testing.assert_array_equal(one.images.counts, expected.images.counts)
        assert one.images.names == expected.images.names
        for mine, theirs in zip(one.samples, expected.samples, strict=True):
            np.testing.assert_array_equal(mine[0].image, theirs[0].image)
            np.testing.assert_array_equal(mine[1], theirs[1])
        for mine, theirs in zip(one.ranked, expected.ranked, strict=True):
            assert (mine.role, mine.mean_iou) == (theirs.role, theirs.mean_iou)
            np.testing.assert_array_equal(mine.prediction, theirs.prediction)
