"""The compiled operators within MindSpore differ from the stock ones by no more than rounding."""

import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from fcnlab import kernels
from fcnlab.kernels import operators
from fcnlab.kernels.build import build
from fcnlab.losses import CrossEntropy
from fcnlab.models import build_model
from fcnlab.models.layers import NormRelu
from fcnlab.training.optimizers import SGD
from fcnlab.training.step import TrainStep


def networks(norm="batch"):
    """Return the same network twice, with compiled operators and with MindSpore's."""
    settings = {"num_classes": 3, "width": 1 / 16, "norm": norm, "dropout": 0.0}
    compiled = build_model("fcn8s", **settings)
    with kernels.stock_operators():
        stock = build_model("fcn8s", **settings)
    random = np.random.default_rng(0)
    for network in (compiled, stock):
        for parameter in network.trainable_params():
            if parameter.name.startswith("score"):  # zero scores would hide everything below them
                parameter.set_data(Tensor(0.1 * random.standard_normal(parameter.shape, dtype=np.float32)))
        random = np.random.default_rng(0)
    return compiled, stock


def images(*shape):
    return Tensor(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))


def relative_error(found, expected):
    """Return the error of all elements together, since rounding may decide about one at the edge of a ReLU."""
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


class Training:
    """Three steps of a network, from initial values that may be disturbed."""

    def __init__(self, network):
        self.step = TrainStep(network, CrossEntropy(255, 3), SGD(network.trainable_params()))
        self.start = {name: value.asnumpy().copy() for name, value in self.step.state().items()}

    def __call__(self, disturbance=0.0, seed=0):
        """Train, and return the losses and the change of each parameter."""
        random = np.random.default_rng(seed)
        start = {}
        for name, value in self.step.state().items():
            noise = disturbance * random.standard_normal(value.shape) if value.requires_grad else 0
            start[name] = np.asarray(self.start[name] * (1 + noise), np.float32)
            value.set_data(Tensor(start[name]))
        labels = Tensor(np.random.default_rng(2).integers(0, 3, (2, 64, 96)).astype(np.int32))
        rate = Tensor(0.002, ms.float32)
        losses = [float(self.step(images(2, 3, 64, 96), labels, rate).asnumpy()) for _ in range(3)]
        moved = {name: value.asnumpy() - start[name] for name, value in self.step.state().items()}
        return np.array(losses), moved


@pytest.mark.slow  # test_gradients.py compares the gradients
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_training_step(norm):
    """Compiled operators have at most ten times the effect of weights that differ by some roundings, 2e-6."""
    compiled, stock = (Training(network) for network in networks(norm))
    losses, moved = compiled()
    expected_losses, expected = stock()
    disturbed = [stock(2e-6, seed) for seed in range(3)]
    assert losses[2] < losses[0]
    assert np.abs(losses - expected_losses).max() <= 10 * max(
        np.abs(one - expected_losses).max() for one, _ in disturbed
    )
    assert moved.keys() == expected.keys()
    for name, move in moved.items():
        # A few channels may change by a whole pixel of a ReLU or a pooling; a wrong gradient is off by all of its size.
        of_disturbance = np.median([relative_error(one[name], expected[name]) for _, one in disturbed])
        assert relative_error(move, expected[name]) <= max(0.1, 10 * of_disturbance), name


def test_any_image_size_with_one_compilation():
    compiled, stock = networks()
    compiled.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    for network in (compiled, stock):
        network.set_train(False)
    for size in ((32, 32), (64, 100), (77, 45)):
        expected = stock(images(1, 3, *size)).asnumpy()
        np.testing.assert_allclose(compiled(images(1, 3, *size)).asnumpy(), expected, atol=1e-4 * expected.std())


def test_the_gradient_in_evaluation_takes_the_statistics_as_constants():
    gradients = []
    for network in networks():
        network.set_train(False)
        of_images, of_parameters = ms.grad(network, 0, network.trainable_params())(images(1, 3, 64, 64))
        gradients.append([gradient.asnumpy() for gradient in (of_images, *of_parameters)])
    for compiled, stock in zip(*gradients, strict=True):
        assert relative_error(compiled, stock) < 0.01


def test_pynative_mode():
    """The mode for debugging runs each operator by itself."""
    compiled, stock = networks()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        found = [network.set_train(False)(images(1, 3, 32, 32)).asnumpy() for network in (compiled, stock)]
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4 * found[1].std())


def test_what_runs_out_of_memory_ends_in_an_error_not_in_a_crash(tmp_path):
    """The process is not allowed to take the memory that a convolution needs."""
    code = (
        "import resource, numpy as np\n"
        "from native import Native\n"
        f"native = Native({str(build())!r})\n"  # compiled before, as that leaves memory to be used again
        "arrays = [np.ones((1, 512, 64, 64)), np.ones((512, 512, 3, 3))]\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20, -1))\n"
        "try:\n"
        "    native('conv3x3', arrays, (1, 512, 64, 64))\n"
        "except (AssertionError, MemoryError):\n"
        "    print('refused')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "refused\n", done.stderr


class PartlyFrozen(nn.Cell):
    """Two normalisations, of which the first is frozen, and a sum of what they give."""

    def __init__(self, pool):
        super().__init__()
        self.first, self.second = NormRelu(3, pool), NormRelu(3, pool)
        self.first.use_batch_statistics = False

    def construct(self, batch):
        outputs = self.second(self.first(batch) + 0.5)
        return (outputs * outputs * outputs).sum()


@pytest.mark.parametrize("pool", [False, True])
def test_a_graph_takes_the_gradient_of_each_normalisation_by_its_own_rule(pool):
    """MindSpore takes primitives of the same name and attributes for one: it had one rule for constants and batches."""
    batch = images(2, 3, 8, 12)
    gradients = []
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode, device_target="CPU")
        gradients.append(ms.grad(PartlyFrozen(pool).set_train(True))(batch).asnumpy())
    assert np.abs(gradients[0]).max() > 0.1
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-5 * np.abs(gradients[0]).max())


def test_two_backward_passes_of_a_function_need_a_rule_each():
    path = kernels.library()
    kernels.channel_sums()
    with pytest.raises(ValueError, match="channel_sums has another backward pass already"):
        operators._operator(path, "channel_sums", 1, lambda *values: values[:1])
