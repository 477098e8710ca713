"""Several batches whose gradients are added up train like one large batch."""

import mindspore as ms
import numpy as np
import pytest
from added_losses import LOSSES, VOID
from conftest import MODES, compose_tiny
from mindspore import Tensor
from small_network import small_network

import fcnlab
from fcnlab.core.errors import ConfigError, TrainingError
from fcnlab.data.loader import Batch
from fcnlab.losses import CrossEntropy, Dice
from fcnlab.training.accumulation import AccumulatedStep
from fcnlab.training.dropout import DropoutMasks
from fcnlab.training.optimizers import SGD, Adam
from fcnlab.training.step import TrainStep
from fcnlab.training.updates import AccumulatedUpdates


def batches(count=3, seed=0):
    """Batches of one image each, with very different numbers of void pixels and shares of the classes."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        images = generator.standard_normal((1, 3, 16, 16), dtype=np.float32)
        labels = (generator.random((1, 4, 4)) < (0.1, 0.9, 0.5)[index]).astype(np.int32)
        labels[0, : (0, 3, 1)[index]] = VOID
        yield Batch(images, labels, (f"image {index}",))


def updates_of(step):
    return AccumulatedUpdates(step, DropoutMasks(step.network, 0), VOID)


def values(step):
    return {name: parameter.asnumpy().copy() for name, parameter in step.state().items()}


def steps_of(make_loss, make_optimizer, **options):
    """Return the step of a large batch, and that of several small ones, of equal networks."""
    networks = small_network("none"), small_network("none")
    large, small = (
        kind(network, make_loss(), make_optimizer(network.trainable_params()), **options)
        for kind, network in zip((TrainStep, AccumulatedStep), networks, strict=True)
    )
    return large, small


def heavy(parameters):
    return SGD(parameters, weight_decay=0.01, momentum=0.99)


def steady(parameters):
    """Adam, whose epsilon is so large that the rounding of a gradient near zero does not reverse a step."""
    return Adam(parameters, epsilon=0.01)


@pytest.mark.parametrize(
    ("mode", "name", "clip_norm", "optimizer"),
    [
        (ms.PYNATIVE_MODE, "mean", None, heavy),
        (ms.PYNATIVE_MODE, "weighted mean", None, steady),
        (ms.PYNATIVE_MODE, "weighted sum", 0.5, heavy),
        (ms.PYNATIVE_MODE, "focal", 0.01, heavy),
        pytest.param(ms.GRAPH_MODE, "weighted mean", 0.01, heavy, marks=pytest.mark.slow),
        pytest.param(ms.GRAPH_MODE, "weighted sum", None, heavy, marks=pytest.mark.slow),
    ],
)
def test_small_batches_train_like_a_large_one(mode, name, clip_norm, optimizer):
    ms.set_context(mode=mode, device_target="CPU")
    large, small = steps_of(LOSSES[name], optimizer, clip_norm=clip_norm)
    updates = updates_of(small)
    for number in range(3):
        parts = list(batches(seed=number))
        images, labels = (Tensor(np.concatenate(arrays)) for arrays in list(zip(*parts, strict=True))[:2])
        expected = float(large(images, labels, Tensor(0.01, ms.float32)).asnumpy())
        for part in parts:
            updates.add(part, number)
        assert updates.finish(0.01).loss == pytest.approx(expected, rel=1e-5)
    at_end, expected = values(small), values(large)
    assert at_end.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(at_end[key], value, rtol=1e-4, atol=1e-5 * np.abs(value).max(), err_msg=key)


def test_the_mean_of_the_gradients_would_be_another_one():
    """Otherwise the test above could not tell the two apart."""
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    large, _ = steps_of(LOSSES["weighted mean"], heavy)
    gradient = ms.value_and_grad(large.forward, None, large.optimizer.parameters)
    parts = list(batches())
    images, labels = (Tensor(np.concatenate(arrays)) for arrays in list(zip(*parts, strict=True))[:2])
    whole = gradient(images, labels)[1][0].asnumpy()
    by_part = [gradient(Tensor(part.images), Tensor(part.labels))[1][0].asnumpy() for part in parts]
    assert np.abs(np.mean(by_part, axis=0) - whole).max() > 0.1 * np.abs(whole).max()


def test_batches_of_void_pixels_count_for_nothing():
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    step = AccumulatedStep(small_network(), CrossEntropy(VOID, 2), heavy(small_network().trainable_params()))
    updates = updates_of(step)
    before = values(step)
    void = next(batches())._replace(labels=np.full((1, 4, 4), VOID, np.int32))
    for _ in range(2):
        updates.add(void, 0)
    assert updates.finish(0.1).loss == 0
    assert all(np.array_equal(value, before[key]) for key, value in values(step).items())


@MODES
def test_one_batch_that_is_not_finite_undoes_the_whole_update(mode):
    ms.set_context(mode=mode, device_target="CPU")
    network = small_network()
    step = AccumulatedStep(network, CrossEntropy(VOID, 2), Adam(network.trainable_params()), guarded=True)
    updates = updates_of(step)
    good = list(batches())
    before = values(step)
    bad = good[1]._replace(images=np.full_like(good[1].images, np.nan), names=("bad",))
    for part in (good[0], bad, good[2]):
        updates.add(part, 0)
    outcome = updates.finish(0.1)
    assert np.isnan(outcome.loss)
    assert outcome.names == ("bad",)
    assert all(np.array_equal(value, before[key]) for key, value in values(step).items())
    losses = []
    for _ in range(2):  # nothing of it is left in the next update
        for part in good:
            updates.add(part, 1)
        losses.append(updates.finish(0.0).loss)
    assert losses[0] == losses[1]
    assert all(np.isfinite(parameter.asnumpy()).all() for parameter in step.application.gradients)


def test_an_update_that_is_given_up_leaves_everything_as_it_was_before_its_first_batch():
    """An interrupted training saves this state, and resumes with the first batch of the update."""
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    network = small_network()
    step = AccumulatedStep(network, CrossEntropy(VOID, 2), Adam(network.trainable_params()))
    updates = updates_of(step)
    before = values(step)
    for part in list(batches())[:2]:
        updates.add(part, 0)
    assert any(not np.array_equal(value, before[key]) for key, value in values(step).items())  # moving statistics
    updates.abandon()
    assert all(np.array_equal(value, before[key]) for key, value in values(step).items())
    assert not any(parameter.asnumpy().any() for parameter in step.application.gradients)


def test_a_loss_that_does_not_add_up_is_refused():
    network = small_network()
    with pytest.raises(ConfigError, match=r"^trainer.accumulate: the gradients of Dice .* trainer.accumulate=1$"):
        AccumulatedStep(network, Dice(VOID, 2), SGD(network.trainable_params()))


PLAIN = ("tracking=none", "arch.norm=none", "arch.dropout=0", "optimizer=sgd", "optimizer.lr=0.05")


def test_a_training_with_small_batches_sees_the_same_crops_and_learns_the_same(tiny):
    """Three of seven crops are left over in each epoch, as they are with the large batch."""
    words = (*PLAIN, "dataset.num_train=7", "dataset.crops_per_image=1", "loss.class_weights=[2.0,1.0]")
    large = fcnlab.train(tiny(*words, "trainer.batch_size=4"))
    small = fcnlab.train(tiny(*words, "trainer.batch_size=2", "trainer.accumulate=2"))
    assert large.steps == small.steps == 2
    np.testing.assert_allclose(small.losses, large.losses, rtol=1e-5)
    one, other = (fcnlab.load(result.last_checkpoint).parameters_dict() for result in (large, small))
    for name, parameter in one.items():
        np.testing.assert_allclose(other[name].asnumpy(), parameter.asnumpy(), rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow  # an update that is given up is tested above
def test_a_training_that_is_interrupted_within_an_update_resumes_to_the_bit(tiny, monkeypatch):
    """It has dropout, and batch normalisation, whose moving statistics a batch of the second update has changed."""
    words = ("tracking=none", "trainer.batch_size=1", "trainer.accumulate=3", "trainer.epochs=1", "trainer.ckpt=false")
    whole = fcnlab.train(tiny(*words), "whole")
    calls, add = [], AccumulatedUpdates.add

    def counted(self, batch, number):
        calls.append(number)
        return add(self, batch, number)

    def next_batch(batches):
        if len(calls) == 5:
            raise KeyboardInterrupt  # while no batch is computed, to which signals are deferred
        return next(batches)

    with monkeypatch.context() as patch:
        patch.setattr(AccumulatedUpdates, "add", counted)
        patch.setattr("fcnlab.training.trainer.next", next_batch, raising=False)
        with pytest.raises(KeyboardInterrupt):
            fcnlab.train(tiny(*words), "torn")
    assert calls == [0, 0, 0, 1, 1]
    resumed = fcnlab.train(tiny(*words, "resume=torn"))
    assert resumed.losses == whole.losses
    one, other = (fcnlab.load(result.last_checkpoint).parameters_dict() for result in (whole, resumed))
    for name, parameter in one.items():
        np.testing.assert_array_equal(other[name].asnumpy(), parameter.asnumpy(), err_msg=name)


def test_a_training_with_such_a_loss_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"^trainer.accumulate: the gradients of Combined"):
        fcnlab.train(tiny("tracking=none", "loss=combined", "trainer.accumulate=2"))


def test_a_loss_that_is_not_finite_ends_the_training_with_the_batch_at_fault(tiny, monkeypatch):
    def not_finite(self, images, labels, *masks):
        return np.array([np.nan, 1.0])

    monkeypatch.setattr(AccumulatedStep, "add", not_finite)
    with pytest.raises(TrainingError, match=r"is nan at step 1 on \S+: lower optimizer.lr"):
        fcnlab.train(compose_tiny("tracking=none", "trainer.batch_size=1", "trainer.accumulate=2"))
