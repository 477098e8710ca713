import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from fcnlab.models.vgg import VGG16Encoder, scaled


def test_scaled_rounds_and_keeps_one():
    assert [scaled(64, 1.0), scaled(64, 0.25), scaled(100, 0.126), scaled(64, 0.001)] == [64, 16, 13, 1]


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_five_pooled_maps_each_half_the_size(norm):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    encoder = VGG16Encoder(1 / 32, norm)
    assert encoder.channels == [2, 4, 8, 16, 16]
    maps = encoder(Tensor(np.zeros((2, 3, 64, 96), np.float32)))
    assert [pooled.shape for pooled in maps] == [
        (2, 2, 32, 48),
        (2, 4, 16, 24),
        (2, 8, 8, 12),
        (2, 16, 4, 6),
        (2, 16, 2, 3),
    ]


def test_parameter_names_of_a_block():
    names = {
        norm: [parameter.name for parameter in VGG16Encoder(1 / 64, norm).get_parameters()]
        for norm in ("batch", "none")
    }
    normalised = [name for name in names["batch"] if name.startswith("block1.")]
    assert sorted(normalised) == sorted(
        f"block1.{layer}"
        for index in (1, 2)
        for layer in (
            f"conv{index}.weight",
            f"norm{index}.gamma",
            f"norm{index}.beta",
            f"norm{index}.moving_mean",
            f"norm{index}.moving_variance",
        )
    )
    assert [name for name in names["none"] if name.startswith("block5.")] == [
        f"block5.conv{index}.{kind}" for index in (1, 2, 3) for kind in ("weight", "bias")
    ]


def test_new_statistics_weigh_a_tenth():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    encoder = VGG16Encoder(1 / 64)
    encoder.set_train()
    parameters = {parameter.name: parameter for parameter in encoder.get_parameters()}
    # The first convolution copies the red channel.
    parameters["block1.conv1.weight"][0, 0, 1, 1] = 1.0
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    encoder(Tensor(images))
    red = images[:, 0]
    mean = parameters["block1.norm1.moving_mean"].asnumpy()
    variance = parameters["block1.norm1.moving_variance"].asnumpy()
    np.testing.assert_allclose(mean, [0.1 * red.mean()], atol=1e-6)
    np.testing.assert_allclose(variance, [0.9 + 0.1 * red.var(ddof=1)], rtol=1e-5)
