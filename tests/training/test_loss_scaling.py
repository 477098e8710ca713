"""The loss scale halves at an overflow, doubles after a while without one, and belongs to a training's state."""

import math

import mindspore as ms
import numpy as np
import pytest
from conftest import MODES
from mindspore import Tensor
from scripted_training import Scripted, Step, make
from small_network import small_network

from fcnlab.config import compose
from fcnlab.core.errors import ConfigError, TrainingError
from fcnlab.data.loader import Batch
from fcnlab.experiment.assembly import build_network, build_step
from fcnlab.losses import CrossEntropy
from fcnlab.training.accumulation import AccumulatedStep
from fcnlab.training.dropout import DropoutMasks
from fcnlab.training.loss_scaling import LARGEST, SMALLEST, LossScale
from fcnlab.training.mixed_precision import MixedPrecision
from fcnlab.training.optimizers import Adam
from fcnlab.training.state import Progress, StateFolder
from fcnlab.training.step import TrainStep
from fcnlab.training.updates import AccumulatedUpdates, SingleUpdates

VOID = 255


def scales(loss_scale, overflows):
    """Return the scale before each step, and after the last one."""
    found = [loss_scale.value]
    for overflow in overflows:
        loss_scale.record(overflow)
        found.append(loss_scale.value)
    return found


def test_the_scale_halves_at_an_overflow_and_doubles_after_enough_good_steps():
    loss_scale = LossScale(1024, window=2)
    assert scales(loss_scale, [False, True, False, False, False, True, True, False, False]) == [
        *(1024, 1024, 512, 512, 1024, 1024, 512, 256, 256, 512)
    ]
    assert loss_scale.count == 3


def test_the_scale_stays_between_its_bounds():
    assert scales(LossScale(LARGEST / 2, window=1), [False] * 3)[-2:] == [LARGEST, LARGEST]
    assert scales(LossScale(SMALLEST * 2), [True] * 2)[-2:] == [SMALLEST, SMALLEST]


@pytest.mark.parametrize("initial", [1000, 0.3, 2.0**25, 2.0**-25])
def test_a_scale_that_would_round_or_is_out_of_range_is_refused(initial):
    with pytest.raises(ConfigError, match=r"trainer.loss_scale=.*: give a power of two"):
        LossScale(initial)


@pytest.mark.parametrize("words", [["trainer.loss_scale=1024"], ["trainer.amp=bf16", "trainer.loss_scale_window=5"]])
def test_a_scale_that_nothing_uses_is_refused(words):
    config = compose(["arch=fcn32s", "arch.width=0.03125", *words])
    with pytest.raises(
        ConfigError, match=r"trainer\.loss_scale\w*=\d+: trainer\.amp=\w+ scales no loss; leave the key out"
    ):
        build_step(config, build_network(config))


def test_a_state_holds_the_scale(tmp_path):
    def parameters(loss_scale):
        return loss_scale.parameters_dict()

    saved, found = LossScale(1024, window=3), LossScale(65536, window=3)
    scales(saved, [True, False, False])
    path = StateFolder(tmp_path).save(Progress(steps=3), parameters(saved), {})
    state = StateFolder(tmp_path).newest()
    assert state.path == path
    state.load_into(parameters(found))
    assert (found.value, found.count) == (512, 1)
    assert scales(found, [False]) == [512, 1024]


def batch(seed=0, factor=1.0):
    generator = np.random.default_rng(seed)
    images = factor * generator.standard_normal((2, 3, 16, 16), dtype=np.float32)
    return Batch(images, generator.integers(0, 2, (2, 4, 4)).astype(np.int32), (f"image {seed}",))


def step_of(kind, scale, **options):
    network = small_network()
    mixed = MixedPrecision(network, "O2") if scale else network
    loss_scale = LossScale(scale) if scale else None
    parameters = network.trainable_params()
    return kind(mixed, CrossEntropy(VOID, 2), Adam(parameters), guarded=True, loss_scale=loss_scale, **options)


def updates_of(step):
    masks = DropoutMasks(step.network, 0)
    if isinstance(step, TrainStep):
        return SingleUpdates(step, masks, VOID, guarded=True)
    return AccumulatedUpdates(step, masks, VOID)


def values(step):
    return {name: parameter.asnumpy().copy() for name, parameter in step.state().items()}


@MODES
@pytest.mark.parametrize("kind", [TrainStep, AccumulatedStep])
def test_an_overflow_changes_nothing_and_the_next_smaller_scale_trains(mode, kind):
    ms.set_context(mode=mode, device_target="CPU")
    step = step_of(kind, LARGEST, clip_norm=1.0)
    updates, before = updates_of(step), values(step)

    def outcome():
        for seed in range(1 if kind is TrainStep else 2):
            updates.add(batch(seed), 0)
        return updates.finish(0.01)

    first = outcome()
    assert first.overflow
    assert 0.1 < first.loss < 10  # it is that of the forward pass
    assert {"loss_scale.scale", "loss_scale.good_steps", "loss_scale.overflows"} < before.keys()
    for name, array in values(step).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    for _ in range(40):
        step.loss_scale.record(overflow=True)
        second = outcome()
        if not second.overflow:
            break
    assert not second.overflow
    assert second.loss == first.loss
    after = values(step)
    assert all(np.isfinite(array).all() for array in after.values())
    changed = {name for name in after if (after[name] != before[name]).any()}
    assert {"score.weight", "block1.norm1.gamma", "block1.norm1.moving_mean", "optimizer.first.score.weight"} < changed


@pytest.mark.parametrize("kind", [TrainStep, AccumulatedStep])
def test_a_scale_that_is_a_power_of_two_changes_no_bit_in_float32(kind):
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    ends = []
    for scale in (1.0, 4096.0):
        network = small_network()
        loss_scale = LossScale(scale)
        optimizer = Adam(network.trainable_params())
        step = kind(network, CrossEntropy(VOID, 2), optimizer, guarded=True, loss_scale=loss_scale)
        updates = updates_of(step)
        updates.add(batch(0), 0)
        ends.append((updates.finish(0.01).loss, values(step)))
    (loss, one), (expected, other) = ends
    assert loss == expected
    for name in one.keys() - {"loss_scale.scale"}:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


class Overflowing(Step):
    """A step with a scaled loss, whose gradients overflow where the script says so."""

    def __init__(self, overflows, scale):
        super().__init__()
        self.loss_scale = LossScale(scale, window=2)
        self.overflows = iter(overflows)

    def __call__(self, *inputs):
        super().__call__(*inputs)
        return Tensor(np.array([0.5, math.nan if next(self.overflows) else 0], np.float32))


def test_overflows_are_counted_and_reported_and_end_no_training(tmp_path, caplog):
    caplog.set_level("INFO")
    step = Overflowing([True, True, False, False, True, False], scale=8)
    trainer, recorder = make(tmp_path, Scripted([10] * 9), step=step, epochs=3, eval_every=1)
    result = trainer.fit()
    assert [event.loss_scale for event in recorder.steps] == [8, 4, 2, 2, 4, 2]
    assert [event.overflows for event in recorder.steps] == [1, 2, 2, 2, 3, 3]
    assert [event.loss for event in recorder.steps] == [0.5] * 6
    assert (result.overflows, result.skipped, result.steps) == (3, 0, 6)
    assert "step 2 overflows in float16 and is left out: the loss scale is now 2 (overflows so far: 2)" in caplog.text


def test_overflows_at_the_smallest_scale_end_the_training(tmp_path, caplog):
    step = Overflowing([True] * 9, scale=SMALLEST * 2)
    trainer, _ = make(tmp_path, Scripted([10] * 9), step=step, epochs=3, eval_every=1, skip_nonfinite=1)
    with pytest.raises(TrainingError, match=r"nan at step 3 on e1s0, b, after 1 skipped ones: lower optimizer.lr"):
        trainer.fit()
    assert "trainer.amp=bf16" in caplog.text


def test_a_step_without_a_scale_reports_none(tmp_path):
    trainer, recorder = make(tmp_path, Scripted([10] * 9), epochs=1, eval_every=1)
    assert trainer.fit().overflows == 0
    assert {(event.loss_scale, event.overflows) for event in recorder.steps} == {(None, None)}
