"""The compiled operators' gradients of a published network are those of the function that their forward pass computed.

A ReLU passes a gradient on or not, and a pooling passes it to one of four cells. Both decide by values that the two
kinds of operators round differently, so that now and then one of millions decides otherwise, after which a whole pixel
of a gradient differs: at a quarter of the published width, a single one moved a parameter's gradient by 1e-2 of its
size, and MindSpore's own operators react by as much (2e-2) to images that differ by 1e-5. So these operators are given
the decisions of the compiled ones here, and then the gradients must agree to rounding.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from published_definition import random_network

from fcnlab import kernels
from fcnlab.models import build_model

WIDTH = 1 / 8

BOUND = 3e-4
"""The largest difference of a parameter's gradient, relative to its size. Measured were up to 1.4e-5 at width 1/4 and
1.4e-4 at width 1/32, there for a bias of two channels whose gradients nearly cancel out; with a decision that differs,
up to 1e-2."""


class Decisions:
    """What the ReLUs and poolings of a network passed on, in the order in which they are computed."""

    def __init__(self):
        self.made = []

    def recording(self, relu):
        """The two layers, which remember what they pass on."""

        def rectify(cell, features):
            self.made.append(features.asnumpy() > 0)
            return relu(cell, features)

        def pool(cell, features):
            windows = in_windows(features.asnumpy())
            self.made.append(in_map(np.eye(4, dtype=bool)[windows.argmax(-1)]))
            return cell_sums(features, self.made[-1])

        return rectify, pool

    def replaying(self):
        """The two layers, which pass on what the recorded ones passed on."""
        decisions = iter(self.made)
        return (
            lambda cell, features: features * Tensor(next(decisions).astype(np.float32)),
            lambda cell, features: cell_sums(features, next(decisions)),
        )


def in_windows(features):
    """The four cells of each window of a pooling of stride 2: N x C x H/2 x W/2 x 4."""
    batch, channels, height, width = features.shape
    even = features[:, :, : height // 2 * 2, : width // 2 * 2]
    cells = even.reshape(batch, channels, height // 2, 2, width // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return cells.reshape(batch, channels, height // 2, width // 2, 4)


def in_map(windows):
    """The cells of windows at their places in the map."""
    batch, channels, height, width, _ = windows.shape
    cells = windows.reshape(batch, channels, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    return cells.reshape(batch, channels, 2 * height, 2 * width)


def cell_sums(features, passed):
    """The sum of the cells of each window that are passed on."""
    batch, channels, height, width = passed.shape
    kept = features[:, :, :height, :width] * Tensor(passed.astype(np.float32))
    return kept.reshape(batch, channels, height // 2, 2, width // 2, 2).sum(axis=(3, 5))


@pytest.mark.parametrize(
    "name", ["fcn8s", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fcn32s", "fcn16s"))]
)
def test_gradients_with_the_same_decisions(name, monkeypatch):
    if kernels.library() is None:
        pytest.skip("there are no compiled operators here")
    stock = random_network(name, WIDTH)
    compiled = build_model(f"paper/{name}", num_classes=3, width=WIDTH, dropout=0)
    for parameter, value in zip(compiled.get_parameters(), stock.get_parameters(), strict=True):
        parameter.set_data(value.value())
    images, factors = (Tensor(array[None]) for array in np.random.default_rng(3).standard_normal(
        (2, 3, 53, 67), dtype=np.float32))  # fmt: skip

    def gradients(network):
        parameters = network.trainable_params()
        _, found = ms.value_and_grad(lambda pixels: (network(pixels) * factors).sum(), None, parameters)(images)
        return {parameter.name: value.asnumpy() for parameter, value in zip(parameters, found, strict=True)}

    decisions = Decisions()
    found = gradients(compiled)
    with monkeypatch.context() as patch:
        rectify, pool = decisions.recording(nn.ReLU.construct)
        patch.setattr(nn.ReLU, "construct", rectify)
        patch.setattr(nn.MaxPool2d, "construct", pool)
        compiled(images)
    assert len(decisions.made) == 13 + 5 + 2  # of the convolutions, the poolings, fc6 and fc7
    rectify, pool = decisions.replaying()
    monkeypatch.setattr(nn.ReLU, "construct", rectify)
    monkeypatch.setattr(nn.MaxPool2d, "construct", pool)
    expected = gradients(stock)
    for key, value in expected.items():
        assert np.linalg.norm(found[key] - value) < BOUND * np.linalg.norm(value), key
