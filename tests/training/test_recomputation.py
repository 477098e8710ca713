"""Activations that are computed again in the backward pass change no bit, and take less memory."""

import subprocess
import sys

import pytest
from conftest import TINY, user_environment
from mindspore import nn
from small_network import Small

import fcnlab
from fcnlab.core.errors import ConfigError
from fcnlab.models import build_model
from fcnlab.training.recomputation import recompute_blocks


def network(encoder):
    return build_model("fcn32s", num_classes=2, width=1 / 64, encoder=encoder)


@pytest.mark.parametrize(
    ("encoder", "count"), [("vgg16", 5), ("vgg11", 5), ("alexnet", 3), ("resnet18", 9), ("resnet50", 17)]
)
def test_the_blocks_hold_all_parameters_of_the_encoder_once(encoder, count):
    made = network(encoder)
    blocks = recompute_blocks(made)
    assert len(blocks) == count
    found = [id(parameter) for block in blocks for parameter in block.get_parameters()]
    assert sorted(found) == sorted(id(parameter) for parameter in made.encoder.get_parameters())


def test_networks_that_cannot_be_recomputed_are_refused():
    with pytest.raises(ConfigError, match=r"Small has no encoder .*trainer.recompute=none"):
        recompute_blocks(Small())
    made = network("vgg16")
    made.encoder.block2 = nn.SequentialCell(nn.Conv2d(3, 3, 1), nn.Dropout(p=0.5))
    with pytest.raises(ConfigError, match=r"Dropout \(1\) in the encoder would drop other"):
        recompute_blocks(made)


def test_it_needs_a_graph(tmp_path):
    words = [*TINY, "tracking=none", "trainer.mode=pynative", "trainer.recompute=blocks"]
    with pytest.raises(ConfigError, match=r"trainer.recompute=blocks: needs trainer.mode=graph"):
        fcnlab.train(fcnlab.compose(words), tmp_path / "out")


MEASURED = """
import sys
import mindspore as ms
import numpy as np
from mindspore import Tensor
from fcnlab.losses import CrossEntropy
from fcnlab.models import build_model
from fcnlab.training.optimizers import Adam
from fcnlab.training.recomputation import recompute_blocks
from fcnlab.training.step import TrainStep

ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
network = build_model("fcn8s", num_classes=2, width=1 / 16)
if sys.argv[1] == "blocks":
    recompute_blocks(network)
step = TrainStep(network, CrossEntropy(255, 2), Adam(network.trainable_params()))
generator = np.random.default_rng(0)
shape = (1, 3, 2048, 2048)
images = generator.standard_normal(shape, dtype=np.float32)
labels = Tensor(generator.integers(0, 2, (1, 2048, 2048)).astype(np.int32))
for number in range(2):
    masks = network.dropout_masks(shape, generator)
    print(float(step(Tensor(images), labels, Tensor(1e-3, ms.float32), Tensor(masks)).asnumpy()).hex())
for name, parameter in sorted(step.state().items()):
    array = parameter.asnumpy()
    print(name, float(array.sum(dtype=np.float64)).hex(), float(np.abs(array).max()).hex())
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
def test_every_weight_moment_and_statistic_stays_the_same_in_less_memory():
    ends = {}
    for how in ("none", "blocks"):
        command = [sys.executable, "-c", MEASURED, how]
        done = subprocess.run(command, env=user_environment(), capture_output=True, text=True, check=True)
        *ends[how], memory = done.stdout.splitlines()
        ends[how, "memory"] = int(memory)
    assert len(ends["none"]) > 100
    assert ends["blocks"] == ends["none"]
    assert ends["blocks", "memory"] < 0.95 * ends["none", "memory"]


@pytest.mark.slow
def test_a_training_has_the_same_losses(tmp_path):
    words = [*TINY, "tracking=none", "arch=fcn32s", "arch.encoder=resnet18"]
    losses = [
        fcnlab.train(fcnlab.compose([*words, f"trainer.recompute={how}"]), tmp_path / how).losses
        for how in ("none", "blocks")
    ]
    assert losses[0] == losses[1]
