"""Arrays of any number of channels and of 16 bits, and every transform of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.schema import AugmentConfig
from fcnlab.data import Sample, channels
from fcnlab.data.loader import normalise
from fcnlab.data.transforms import TrainTransform


def some(count, kind=np.uint8, height=24, width=37, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, (height, width, count), dtype=kind)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_people_see_three_channels(count):
    image = some(count, np.uint16)
    found = channels.to_rgb(image)
    assert found.shape == (*image.shape[:2], 3)
    assert found.dtype == np.uint8
    shown = min(count, 3)
    np.testing.assert_array_equal(found[..., :shown], np.rint(image[..., :shown] / 65535 * 255))


EVERYTHING = AugmentConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotate90=True,
    scale=[0.5, 2.0],
    brightness=0.2,
    rotation=45.0,
    elastic=3.0,
    gamma=[0.5, 2.0],
    blur=2.0,
)


@given(st.sampled_from([1, 2, 4, 5, 9]), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**31), st.booleans())
@settings(max_examples=40, deadline=None)
def test_each_channel_is_transformed_as_if_it_were_alone(count, kind, seed, larger_than_the_image):
    """Contrast and noise aside: the one is about the mean of all, the other independent for each."""
    image = some(count, kind, 40, 52)
    label = np.random.default_rng(seed).integers(0, 3, image.shape[:2], dtype=np.uint8)
    apply = TrainTransform(EVERYTHING, 64 if larger_than_the_image else 32, 255)
    found = apply(Sample(image, label, "all"), np.random.default_rng(seed))
    assert found.image.shape == (*found.label.shape, count)
    assert found.image.dtype == kind
    for channel in range(count):
        alone = apply(Sample(image[..., channel : channel + 1], label, "one"), np.random.default_rng(seed))
        np.testing.assert_array_equal(alone.label, found.label)
        # OpenCV's vectors may round the last bit another way, and so may what each step makes of it.
        difference = np.abs(found.image[..., channel].astype(int) - alone.image[..., 0])
        assert difference.max() <= (4 if kind == np.uint8 else 1024)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_normalisation_is_on_the_scale_from_0_to_1(kind):
    image = some(5, kind)
    mean, std = np.linspace(0.2, 0.6, 5), np.linspace(0.1, 0.5, 5)
    expected = (image / np.iinfo(kind).max - mean) / std
    np.testing.assert_allclose(normalise(image, mean, std), expected.transpose(2, 0, 1), atol=1e-5)
