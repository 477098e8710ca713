"""Gamma, colour, blur and noise, against formulas in float64."""

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.config.schema import AugmentConfig
from fcnlab.core.errors import ConfigError
from fcnlab.data import Sample
from fcnlab.data.appearance import apply_gamma, blur, colour_jitter, gamma, jitter_colours, noise

VOID = 255


def image(height=20, width=30, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def sample(channels=3):
    pixels = image(channels=channels)
    return Sample(pixels, np.zeros(pixels.shape[:2], np.uint8), "noise")


@given(st.floats(0.1, 10), st.sampled_from([1, 2, 3, 5]))
@settings(max_examples=30, deadline=None)
def test_gamma_is_the_power(power, channels):
    pixels = image(channels=channels)
    found = apply_gamma(pixels, power)
    assert found.shape == pixels.shape
    np.testing.assert_allclose(found, (pixels / 255) ** power * 255, atol=0.5 + 1e-9)


def test_no_saturation_is_grey():
    pixels = image()
    found = jitter_colours(pixels, 0.0, 0.0)
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    for channel in range(3):
        np.testing.assert_allclose(found[..., channel], expected, atol=0.6)  # OpenCV rounds its factors


@pytest.mark.parametrize("turn", [-0.25, 1 / 3])
def test_a_turn_of_the_colours_is_colorsys(turn):
    pixels = image(4, 5)
    found = jitter_colours(pixels, 1.0, turn)
    for place in np.ndindex(pixels.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[place] / 255))
        expected = np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)) * 255
        np.testing.assert_allclose(found[place], expected, atol=6)  # hue has 256 steps


def test_neither_changes_nothing():
    pixels = image()
    np.testing.assert_array_equal(jitter_colours(pixels, 1.0, 0.0), pixels)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_noise_has_the_deviation_that_was_drawn(channels):
    grey = Sample(np.full((200, 200, channels), 128, np.uint8), np.zeros((200, 200), np.uint8), "grey")
    add = noise(AugmentConfig(noise=0.1), VOID)
    deviations = [float(add(grey, np.random.default_rng(seed)).image.std()) for seed in range(20)]
    assert max(deviations) < 0.1 * 255 * 1.03
    assert np.mean(deviations) == pytest.approx(0.05 * 255, rel=0.35)  # uniform from 0


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blur_keeps_the_mean_and_takes_contrast(channels):
    given_sample = sample(channels)
    found = blur(AugmentConfig(blur=3.0), VOID)(given_sample, np.random.default_rng(1))
    assert found.image.shape == given_sample.image.shape
    assert found.image.mean() == pytest.approx(given_sample.image.mean(), abs=3)
    assert found.image.std() < 0.8 * given_sample.image.std()


def test_labels_and_the_given_arrays_stay():
    given_sample = sample()
    before = given_sample.image.copy()
    given_sample.image.setflags(write=False)
    augment = AugmentConfig(gamma=[0.5, 2.0], saturation=0.5, hue=0.2, blur=2.0, noise=0.2)
    for factory in (gamma, colour_jitter, blur, noise):
        found = factory(augment, VOID)(given_sample, np.random.default_rng(0))
        assert found.label is given_sample.label
        assert not np.array_equal(found.image, before)
    np.testing.assert_array_equal(given_sample.image, before)


def test_a_range_of_zero_costs_nothing():
    assert [factory(AugmentConfig(), VOID) for factory in (gamma, colour_jitter, blur, noise)] == [None] * 4


def test_colours_need_three_channels():
    with pytest.raises(ConfigError, match=r"augment\.saturation and augment\.hue .* 1 channels"):
        colour_jitter(AugmentConfig(hue=0.1), VOID)(sample(1), np.random.default_rng(0))
