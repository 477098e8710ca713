"""What is frozen stays as it is, and costs no gradient."""

import math

import mindspore as ms
import numpy as np
import pytest
from conftest import MODES, refused
from mindspore import Tensor
from small_network import small_network

import fcnlab
from fcnlab import compose
from fcnlab.core.errors import ConfigError, TrainingError
from fcnlab.losses import CrossEntropy
from fcnlab.models import build_model
from fcnlab.training.freezing import freeze
from fcnlab.training.optimizers import SGD
from fcnlab.training.step import TrainStep


def batch():
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, 3, 16, 16), dtype=np.float32)
    return Tensor(images), Tensor(generator.integers(0, 2, (2, 4, 4)).astype(np.int32))


def values(cell):
    return {name: parameter.asnumpy().copy() for name, parameter in cell.parameters_dict().items()}


@MODES
def test_frozen_layers_compute_the_same_function_after_steps_as_before(mode):
    """Their scale, shift, weights and moving statistics stay, and normalise the training's batches."""
    ms.set_context(mode=mode, device_target="CPU")
    made = small_network()
    freeze(made, ["block1.*"])
    frozen = {name for name in values(made) if name.startswith("block1.")}
    assert any(name.endswith("moving_mean") for name in frozen)
    before = values(made)
    step = TrainStep(made, CrossEntropy(255, 2), SGD(made.trainable_params()))
    assert not frozen & {parameter.name for parameter in step.optimizer.parameters}
    images, labels = batch()
    in_training = made.block1(images).asnumpy()
    for _ in range(2):
        step(images, labels, Tensor(0.1, ms.float32))
    after = values(made)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert not changed & frozen
    assert {name for name in before if name.endswith("moving_mean")} - frozen <= changed
    assert "block2.conv1.weight" in changed
    made.set_train(False)
    in_use = made.block1(images).asnumpy()
    np.testing.assert_allclose(in_use, in_training, rtol=1e-6)
    assert frozen <= step.state().keys()  # so that a state holds them, and looks for NaN in them


@MODES
def test_the_other_gradients_are_those_of_the_whole_small_network(mode):
    ms.set_context(mode=mode, device_target="CPU")
    images, labels = batch()
    after = []
    for patterns in ([], ["block1.*", "block2.conv1.bias"]):
        made = small_network(norm="none")
        freeze(made, patterns)
        step = TrainStep(made, CrossEntropy(255, 2), SGD(made.trainable_params()))
        step(images, labels, Tensor(0.1, ms.float32))
        after.append(values(made))
    for name, value in after[0].items():
        if name.startswith(("block1.", "block2.conv1.bias")):
            assert not np.array_equal(value, after[1][name])
        else:
            np.testing.assert_allclose(value, after[1][name], rtol=1e-5, atol=1e-7)


def test_a_norm_of_which_only_a_part_is_frozen_goes_on_learning_its_statistics():
    made = small_network()
    freeze(made, ["block1.norm1.gamma"])
    assert made.block1.norm1.use_batch_statistics is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "blok1.*",
            "optimizer.freeze: no parameter has a name like 'blok1.*'; there are 8, such as "
            "block1.conv1.weight, block1.norm1.gamma, block1.norm1.beta",
        ),
        ("*", "optimizer.freeze=['*']: matches all parameters, so that nothing would be trained"),
        (
            "*.moving_mean",
            "optimizer.freeze: what has a name like '*.moving_mean' is not trained anyway; leave this pattern out",
        ),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused_and_changes_nothing(pattern, message):
    made = small_network()
    trained = made.trainable_params()
    with pytest.raises(ConfigError) as caught:
        freeze(made, [pattern])
    assert str(caught.value) == message
    assert made.trainable_params() == trained


def test_patterns_are_words():
    assert refused(compose, "optimizer.freeze=[[a]]").startswith("optimizer.freeze=[['a']]: give a list of patterns")


def test_a_training_keeps_what_is_frozen_in_its_checkpoints_and_resumes_with_it(tiny):
    words = ("tracking=none", "optimizer.freeze=['encoder.*']")
    result = fcnlab.train(tiny(*words), "run")
    start = build_model("fcn32s", num_classes=2, width=0.03125, seed=0).parameters_dict()
    end = fcnlab.load(result.last_checkpoint).parameters_dict()
    assert start.keys() == end.keys()
    same = {name for name in start if np.array_equal(start[name].asnumpy(), end[name].asnumpy())}
    assert same == {name for name in start if name.startswith("encoder.")}
    assert len(fcnlab.train(tiny(*words, "trainer.epochs=3", "resume=run")).losses) == 6
    with pytest.raises(ConfigError, match=r"^optimizer.freeze=\[\]: the training in .* cannot change in the middle"):
        fcnlab.train(tiny("tracking=none", "trainer.epochs=4", "resume=run", "optimizer.freeze=[]"))


def test_a_frozen_parameter_that_is_no_number_ends_the_training(tiny, monkeypatch):
    from fcnlab.experiment import assembly

    def spoilt(config):
        made = build_model(**assembly.architecture(config))
        weight = made.encoder.block1.conv1.weight
        array = weight.asnumpy().copy()
        array.flat[0] = math.nan  # a ReLU turns what follows from it into 0
        weight.set_data(Tensor(array))
        return made

    monkeypatch.setattr(assembly, "build_network", spoilt)
    with pytest.raises(TrainingError, match=r"encoder.block1.conv1.weight holds NaN"):
        fcnlab.train(tiny("tracking=none", "optimizer.freeze=['encoder.*']"))
