"""Rotation and elastic deformation, image and label together."""

import numpy as np
import pytest

from fcnlab.config.schema import AugmentConfig
from fcnlab.data import Sample
from fcnlab.data.warps import displace, elastic, rotate, rotation

VOID = 255


def picture(height=40, width=56, channels=3):
    """Make a label of blocks, and an image in which each class has its own grey level."""
    rows, columns = np.mgrid[0:height, 0:width]
    label = ((rows // 8 + columns // 8) % 3).astype(np.uint8)
    return Sample(np.repeat((label * 80)[..., None], channels, axis=2), label, "blocks")


def agreement(sample):
    """Return the share of labelled pixels whose grey level is that of their class, to within interpolation."""
    known = sample.label != VOID
    return (abs(sample.image[..., 0].astype(int) - sample.label.astype(int) * 80) <= 40)[known].mean()


def test_a_quarter_turn_is_numpys():
    sample = picture(33, 33)
    turned = rotate(sample, 90, VOID)
    np.testing.assert_array_equal(turned.label, np.rot90(sample.label))
    np.testing.assert_array_equal(turned.image, np.rot90(sample.image))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_turning_moves_image_and_label_alike_and_leaves_void_behind(channels):
    sample = picture(channels=channels)
    turned = rotate(sample, 30, VOID)
    assert turned.image.shape == sample.image.shape
    assert agreement(turned) > 0.95
    assert turned.label[0, 0] == VOID
    assert turned.label[20, 28] == sample.label[20, 28]  # about the centre


def test_a_whole_shift_by_hand():
    sample = picture()
    ones = np.ones(sample.label.shape, np.float32)
    moved = displace(sample, 3 * ones, -2 * ones, VOID)
    np.testing.assert_array_equal(moved.label[2:, :-3], sample.label[:-2, 3:])
    np.testing.assert_array_equal(moved.image[2:, :-3], sample.image[:-2, 3:])
    assert (moved.label[:2] == VOID).all()
    assert (moved.label[:, -3:] == VOID).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_bending_moves_image_and_label_alike(channels):
    sample = picture(96, 128, channels)
    bend = elastic(AugmentConfig(elastic=2.0, elastic_spacing=24.0), VOID)
    bent = bend(sample, np.random.default_rng(1))
    assert bent.image.shape == sample.image.shape
    assert agreement(bent) > 0.93
    changed = (bent.label != sample.label).mean()
    assert 0.05 < changed < 0.6
    again = bend(sample, np.random.default_rng(1))
    np.testing.assert_array_equal(again.image, bent.image)
    assert not np.array_equal(bend(sample, np.random.default_rng(2)).label, bent.label)


def test_the_mean_displacement_is_what_was_asked_for():
    """A ramp tells how far each pixel was moved: its grey level is its column."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    sample = Sample(ramp[..., None], np.zeros_like(ramp), "ramp")
    bend = elastic(AugmentConfig(elastic=4.0, elastic_spacing=16.0), VOID)
    inner = (slice(32, -32), slice(32, -32))
    moved = [
        np.abs(bend(sample, np.random.default_rng(seed)).image[..., 0].astype(float) - ramp)[inner].mean()
        for seed in range(5)
    ]
    assert 2.5 < np.mean(moved) < 4.5  # interpolation between the points takes a little


def test_a_range_of_zero_costs_nothing():
    assert rotation(AugmentConfig(), VOID) is None
    assert elastic(AugmentConfig(), VOID) is None


def test_angles_are_drawn_either_way():
    turn = rotation(AugmentConfig(rotation=20.0), VOID)
    sample = picture()
    labels = {turn(sample, np.random.default_rng(seed)).label.tobytes() for seed in range(6)}
    assert len(labels) == 6
