"""The FCNs of torchvision compute torchvision's logits from torchvision's weights."""

import mindspore as ms
import numpy as np
import pytest
import torchvision_files as torchvision
import weight_files as files
from conftest import MODES
from mindspore import Tensor
from numpy_layers import interpolate

from fcnlab.core.errors import ConfigError
from fcnlab.models import build_model
from fcnlab.models.dilated import BilinearResize
from fcnlab.models.foreign import initialise

WIDTH = 1 / 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
def test_logits_are_those_of_torchvision(tmp_path, depth):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    arrays = torchvision.fcn_resnet(depth)
    network = build_model(f"torchvision/fcn_resnet{depth}", 5, width=WIDTH)
    path = files.torch_file(tmp_path / "fcn.pth", arrays)
    done = initialise(network, path, "init_from=fcn.pth", mean=MEAN, std=STD)
    assert f"FCN of ResNet-{depth} of torchvision's names" in done.description
    assert not [row for row in done.rows if row.action == "initial"]
    unused = [row.name for row in done.rows if row.action == "not used" and not row.name.endswith("tracked")]
    assert unused == [name for name in arrays if name.startswith("aux_classifier.") and not name.endswith("tracked")]
    image = some(3, 41, 70)
    expected = torchvision.fcn_resnet_logits(arrays, depth, image)
    found = network(Tensor(image[None])).asnumpy()[0]
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    assert expected.std() > 0.01


@MODES
def test_one_compilation_serves_all_sizes(mode):
    ms.set_context(mode=mode)
    network = build_model("torchvision/fcn_resnet50", 3, width=1 / 64)
    network.score.weight.set_data(Tensor(some(*network.score.weight.shape)))
    network.set_inputs(Tensor(shape=[None, 3, None, None], dtype=ms.float32))
    for shape in ((1, 3, 32, 47), (2, 3, 65, 33)):
        assert network(Tensor(some(*shape))).shape == (shape[0], 3, *shape[2:])


@pytest.mark.parametrize("sizes", [((4, 5), (32, 40)), ((5, 3), (33, 24)), ((1, 2), (7, 3)), ((6, 6), (6, 6))])
def test_interpolation_is_that_of_its_definition(sizes):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    (height, width), target = sizes
    values = some(2, height, width)
    found = BilinearResize()(Tensor(values[None]), Tensor(np.zeros((1, 1, *target), np.float32)))
    np.testing.assert_allclose(found.asnumpy()[0], interpolate(values, *target), atol=1e-5)


def test_dropout_and_its_masks():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = build_model("torchvision/fcn_resnet50", 2, width=1 / 64, norm="group", dropout=0.5)
    network.score.weight.set_data(Tensor(np.ones(network.score.weight.shape, np.float32)))
    image = Tensor(some(1, 3, 41, 64))
    masks = network.dropout_masks(image.shape, np.random.default_rng(0))
    assert masks.shape == (1, 1, 8, 6, 8)
    plain = network(image).asnumpy()
    kept, dropped = (network(image, Tensor(np.full(masks.shape, value))).asnumpy() for value in (True, False))
    np.testing.assert_allclose(kept, 2 * plain, rtol=1e-4, atol=1e-5)
    assert plain.any()
    assert not dropped.any()
    assert build_model("torchvision/fcn_resnet50", 2, width=1 / 64, dropout=0).dropout_masks(image.shape, None) is None


def test_what_it_has_not_is_refused():
    with pytest.raises(ConfigError, match=r"arch.norm=none: a residual network"):
        build_model("torchvision/fcn_resnet50", 2, width=1 / 64, norm="none")
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, not 31 x 40"):
        build_model("torchvision/fcn_resnet50", 2, width=1 / 64)(Tensor(some(1, 3, 31, 40)))
