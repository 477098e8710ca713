"""A step reports gradients that are not finite, where the loss alone would not."""

import math

import mindspore as ms
import numpy as np
import pytest
from conftest import MODES
from mindspore import Tensor, nn

from fcnlab.losses import CrossEntropy
from fcnlab.models import build_model
from fcnlab.training.optimizers import SGD, Adam
from fcnlab.training.step import TrainStep

RATE = Tensor(1e-3, ms.float32)


def batch():
    generator = np.random.default_rng(0)
    images = generator.standard_normal((1, 3, 32, 32), dtype=np.float32)
    return Tensor(images), Tensor(generator.integers(0, 2, (1, 32, 32)).astype(np.int32))


def network(norm="batch"):
    """Return a network whose scores are not zero, as they are at first, so that gradients flow backward."""
    made = build_model("fcn32s", num_classes=2, width=1 / 64, norm=norm, dropout=0)
    weight = made.score.weight
    weight.set_data(Tensor(np.random.default_rng(1).standard_normal(weight.shape).astype(np.float32)))
    return made


def spoil(parameter, value=math.nan):
    array = parameter.asnumpy().copy()
    array.flat[0] = value
    parameter.set_data(Tensor(array))


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_weight_that_is_no_number_shows_in_what_the_step_returns(norm, guarded):
    """A ReLU turns the NaN into 0, so that the loss is finite, but no gradient below that layer is."""
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    trained, loss = network(norm), CrossEntropy(255, 2)
    step = TrainStep(trained, loss, Adam(trained.trainable_params()), guarded=guarded)
    images, labels = batch()
    spoil(trained.encoder.block3.conv1.weight)
    assert math.isfinite(float(loss(trained(images), labels).asnumpy()))
    before = {parameter.name: parameter.asnumpy().copy() for parameter in trained.trainable_params()}
    assert math.isnan(float(step(images, labels, RATE).asnumpy()))
    if guarded:
        for parameter in trained.trainable_params():
            np.testing.assert_array_equal(parameter.asnumpy(), before[parameter.name])


class Plain(nn.Cell):
    """A small network; without biases, none of its parameters has a single dimension."""

    def __init__(self, has_bias=False):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1, has_bias=has_bias)
        self.hidden = nn.Conv2d(4, 4, 1, has_bias=has_bias)
        self.last = nn.Conv2d(4, 2, 1, has_bias=has_bias)
        self.relu = nn.ReLU()

    def construct(self, images):
        return self.last(self.relu(self.hidden(self.relu(self.first(images)))))


@MODES
def test_without_parameters_of_one_dimension_all_gradients_are_looked_at(mode):
    ms.set_context(mode=mode, device_target="CPU")
    trained, loss = Plain(), CrossEntropy(255, 2)
    images, labels = batch()
    step = TrainStep(trained, loss, SGD(trained.trainable_params()))
    assert math.isfinite(float(step(images, labels, RATE).asnumpy()))
    spoil(trained.hidden.weight)
    assert math.isfinite(float(loss(trained(images), labels).asnumpy()))
    assert math.isnan(float(step(images, labels, RATE).asnumpy()))


@MODES
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_loss_is_not_changed_where_all_is_finite(mode, has_bias):
    ms.set_context(mode=mode, device_target="CPU")
    trained, loss = Plain(has_bias), CrossEntropy(255, 2)
    images, labels = batch()
    step = TrainStep(trained, loss, SGD(trained.trainable_params()))
    plain = ms.value_and_grad(step.forward, None, step.optimizer.parameters)
    expected = plain(images, labels)[0].asnumpy()
    assert step(images, labels, RATE).asnumpy() == expected
