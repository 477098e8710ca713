"""Groups of parameters: three steps of each optimizer against its formula, and what is refused."""

import mindspore as ms
import numpy as np
import pytest
from conftest import compose_tiny, refused
from mindspore import Parameter, Tensor

import fcnlab
from fcnlab import compose
from fcnlab.core.errors import ConfigError
from fcnlab.experiment import resume
from fcnlab.training.optimizers import SGD, Adam, AdamW
from fcnlab.training.parameter_groups import assign_groups

RATE, DECAY = 0.01, 0.1
NAMES = ["encoder.conv.weight", "encoder.conv.bias", "score.weight", "score.bias"]
SHAPES = [(3, 2, 1, 1), (3,), (2, 3, 1, 1), (2,)]
GROUPS = [
    {"pattern": "score.bias", "weight_decay": 0.3},
    {"pattern": "*.bias", "lr": 2.0, "weight_decay": 0},
    {"pattern": "encoder.*", "lr": 0.5},
]
TREATED = [(0.5, DECAY), (2.0, 0.0), (1.0, DECAY), (1.0, 0.3)]
"""The factor on the learning rate and the weight decay of each parameter, by hand."""


def sgd(w, g, state, t, rate, decay):
    state["v"] = 0.9 * state.get("v", 0) + g + decay * w
    return w - rate * state["v"]


def adam(w, g, state, t, rate, decay, decoupled=False):
    gradient = g if decoupled else g + decay * w
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["s"] = 0.999 * state.get("s", 0) + 0.001 * gradient**2
    step = (state["m"] / (1 - 0.9**t)) / np.sqrt(state["s"] / (1 - 0.999**t))
    return w - rate * (step + decoupled * decay * w)


def adamw(w, g, state, t, rate, decay):
    return adam(w, g, state, t, rate, decay, decoupled=True)


@pytest.mark.parametrize(
    ("mode", "optimizer_class", "formula"),
    [
        *((ms.PYNATIVE_MODE, *pair) for pair in ((SGD, sgd), (Adam, adam), (AdamW, adamw))),
        (ms.GRAPH_MODE, AdamW, adamw),
        *(pytest.param(ms.GRAPH_MODE, *pair, marks=pytest.mark.slow) for pair in ((SGD, sgd), (Adam, adam))),
    ],
)
def test_three_steps_are_those_of_the_formula(mode, optimizer_class, formula):
    ms.set_context(mode=mode, device_target="CPU")
    generator = np.random.default_rng(0)
    expected = [generator.normal(size=shape) for shape in SHAPES]
    gradients = [generator.normal(size=shape) for shape in SHAPES]
    parameters = [Parameter(Tensor(w.astype(np.float32)), name=name) for w, name in zip(expected, NAMES, strict=True)]
    optimizer = optimizer_class(parameters, weight_decay=DECAY, groups=GROUPS)
    states = [{} for _ in NAMES]
    for t in (1, 2, 3):  # with the same gradients: MindSpore compiles tensors within a tuple as constants
        optimizer(tuple(Tensor(g.astype(np.float32)) for g in gradients), Tensor(RATE, ms.float32))
        for i, (factor, decay) in enumerate(TREATED):
            expected[i] = formula(expected[i], gradients[i], states[i], t, RATE * factor, decay)
    for parameter, w in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), w, rtol=2e-5, atol=2e-6)


def test_a_parameter_that_no_pattern_matches_is_trained_as_without_groups():
    assert assign_groups(NAMES, GROUPS[:1]) == [{}, {}, {}, GROUPS[0]]
    optimizer = SGD([Parameter(Tensor(np.ones(2, np.float32)), name="w")])
    assert optimizer.rates("the rate itself") == ("the rate itself",)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [{"pattern": "encodr.conv.*", "lr": 2}],
            "optimizer.groups: no parameter that is trained has a name like 'encodr.conv.*'; there are 4, such as "
            "encoder.conv.weight, encoder.conv.bias, score.bias",
        ),
        (
            [{"pattern": "*", "lr": 2}, {"pattern": "*.bias", "lr": 2}],
            "optimizer.groups: all parameters with a name like '*.bias' belong to earlier groups; put this group "
            "before them, or leave it out",
        ),
    ],
)
def test_a_group_without_parameters_is_refused(groups, message):
    with pytest.raises(ConfigError) as caught:
        assign_groups(NAMES, groups)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("{pattern:'*',rate:1}", "optimizer.groups[0].rate: no such key; a group of parameters has pattern, lr and"),
        ("{lr:1}", "optimizer.groups[0]={'lr': 1}: give a group of parameters, as in {pattern: '*.bias', lr: 2.0}"),
        ("3", "optimizer.groups[0]=3: give a group of parameters, as in {pattern: '*.bias', lr: 2.0}"),
        ("{pattern:'*'}", "optimizer.groups[0]: changes nothing; give it lr or weight_decay"),
        ("{pattern:'*',lr:-1}", "optimizer.groups[0].lr=-1: must be at least 0"),
        ("{pattern:'*',lr:nan}", "optimizer.groups[0].lr=nan: must be a finite number"),
        ("{pattern:'*',lr:fast}", "optimizer.groups[0].lr=fast: give a number"),
        ("{pattern:'*',weight_decay:1}", "optimizer.groups[0].weight_decay=1: must be below 1"),
    ],
)
def test_a_group_that_says_something_else_is_refused(group, message):
    assert refused(compose, f"optimizer.groups=[{group}]").startswith(message)


def test_a_training_records_its_groups_and_resumes_with_others_only_after_a_warning(tiny):
    words = ("tracking=none", "trainer.max_steps=1", "optimizer=sgd")
    config = tiny(*words, "optimizer.groups=[{pattern:'*.bias',lr:2.0}]")
    fcnlab.train(config, "run")
    assert compose_tiny("from_run=run").optimizer.groups == [{"pattern": "*.bias", "lr": 2.0}]
    assert resume.is_of(config, resume.newest_training(config, ("run",), finished=True))
    other = tiny(*words, "optimizer.groups=[{pattern:'*.bias',lr:3.0}]")
    assert resume.newest_training(other, ("run",), finished=True) is None
