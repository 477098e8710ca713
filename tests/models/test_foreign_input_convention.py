"""A converted first convolution computes the same features of the same picture."""

import numpy as np
import pytest
from scipy.signal import correlate

from fcnlab.models.foreign import InputConvention
from fcnlab.models.foreign.input_convention import FCN_CAFFE, FCN_MINDSPORE, TORCHVISION, VGG_CAFFE

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (3, 12, 10)).astype(np.uint8)  # RGB
KERNEL = RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)


def features(kernel, pixels):
    """A convolution with a padding of zeros."""
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1)))
    return np.stack([correlate(padded, one, mode="valid")[0] for one in kernel.astype(np.float64)])


def their_pixels(convention):
    picture = PICTURE if convention.order == "RGB" else PICTURE[::-1]
    mean, std = (np.array(values)[:, None, None] for values in (convention.mean, convention.std))
    return (picture / 255 * convention.scale - mean) / std


def our_pixels(mean, std):
    return (PICTURE / 255 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]


@pytest.mark.parametrize("convention", [TORCHVISION, VGG_CAFFE, FCN_CAFFE, FCN_MINDSPORE])
@pytest.mark.parametrize("std", [[0.229, 0.224, 0.225], [0.1, 0.5, 0.3]])
def test_the_same_features_of_the_same_picture(convention, std):
    expected = features(KERNEL, their_pixels(convention))
    kernel, grows = convention.convert(KERNEL, [0.3, 0.5, 0.6], std)
    found = features(kernel, our_pixels([0.3, 0.5, 0.6], std)) + grows[:, None, None]
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], rtol=1e-5, atol=1e-4)
    assert not np.allclose(found[:, 0], expected[:, 0], rtol=1e-2)

    exact = convention.convert(KERNEL, convention.exact_mean, std)
    if exact is not None:
        kernel, grows = exact
        found = features(kernel, our_pixels(convention.exact_mean, std)) + grows[:, None, None]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("convention", [TORCHVISION, FCN_CAFFE])
def test_a_convolution_is_converted_back(convention):
    mean, std = [0.3, 0.5, 0.6], [0.1, 0.5, 0.3]
    expected = features(KERNEL, our_pixels(mean, std))
    kernel, grows = convention.convert_back(KERNEL, mean, std)
    found = features(kernel, their_pixels(convention)) + grows[:, None, None]
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], rtol=1e-5, atol=1e-4)
    same, nothing = InputConvention(tuple(mean), tuple(std)).convert_back(KERNEL, mean, std)
    np.testing.assert_array_equal(same, KERNEL)
    assert not nothing.any()


def test_images_as_the_weights_expect_them_need_nothing():
    assert TORCHVISION.convert(KERNEL, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) is None
    assert TORCHVISION.convert(KERNEL, [0.5, 0.456, 0.406], [0.229, 0.224, 0.225]) is not None


def test_the_exact_mean_is_of_red_green_and_blue():
    assert VGG_CAFFE.exact_mean == pytest.approx([123.68 / 255, 116.779 / 255, 103.939 / 255], abs=1e-6)
    assert InputConvention((0.1, 0.2, 0.3)).exact_mean == [0.1, 0.2, 0.3]
