from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab import compose
from fcnlab.config.schema import AugmentConfig, CellsConfig
from fcnlab.core.errors import ConfigError
from fcnlab.data import Sample, TrainTransform
from fcnlab.data.cells import Cells
from fcnlab.data.transforms import adjust, crop_window, flip, resize, rotate90
from fcnlab.registry import TRANSFORMS

IGNORE = 255


def encoded(height: int, width: int, seed: int = 0) -> Sample:
    """Make a sample with blocks of random classes, whose image shows 20 times the class."""
    blocks = np.random.default_rng(seed).integers(0, 10, (height // 16 + 1, width // 16 + 1))
    label = np.kron(blocks, np.ones((16, 16), int))[:height, :width].astype(np.uint8)
    return Sample(np.repeat(label[..., None] * 20, 3, axis=2), label, "s")


def aligned_fraction(sample: Sample) -> float:
    """Return the share of non-void pixels whose image shows their class."""
    known = sample.label != IGNORE
    difference = np.abs(sample.image[..., 0].astype(int) - 20 * sample.label.astype(int))
    return (difference[known] <= 10).mean()


def test_crop_window_within_the_image_is_a_slice():
    sample = encoded(70, 90)
    crop = crop_window(sample, 13, 29, 40, IGNORE)
    np.testing.assert_array_equal(crop.image, sample.image[13:53, 29:69])
    np.testing.assert_array_equal(crop.label, sample.label[13:53, 29:69])
    assert crop.name == "s"


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_crop_window_matches_a_pixel_by_pixel_reference(height, width, side, data):
    sample = encoded(height, width)
    top = data.draw(st.integers(1 - side, height - 1))
    left = data.draw(st.integers(1 - side, width - 1))
    crop = crop_window(sample, top, left, side, IGNORE)
    expected = np.full((side, side), IGNORE)
    for row in range(side):
        for column in range(side):
            if 0 <= top + row < height and 0 <= left + column < width:
                expected[row, column] = sample.label[top + row, left + column]
    np.testing.assert_array_equal(crop.label, expected)
    known = expected != IGNORE
    np.testing.assert_array_equal(crop.image[known][:, 1], 20 * expected[known])
    if not known.all():
        assert np.allclose(crop.image[~known], (20 * expected[known]).mean(), atol=0.51)


@pytest.mark.parametrize("side", [32, 48, 63, 64, 65, 100, 192])
def test_resize_keeps_image_and_label_on_top_of_each_other(side):
    sample = encoded(64, 64)
    resized = resize(sample, side)
    assert resized.image.shape == (side, side, 3)
    assert resized.label.shape == (side, side)
    # Pixel centres correspond: an independent nearest-neighbour rule.
    source = np.floor((np.arange(side) + 0.5) * 64 / side).astype(int)
    assert (resized.label == sample.label[np.ix_(source, source)]).mean() > 0.97
    # Away from class borders the image shows the class; a shift by half a pixel or more would show in the symmetry.
    mirrored = resize(flip(sample, horizontal=True, vertical=True), side)
    assert np.abs(mirrored.image[::-1, ::-1].astype(int) - resized.image).max() <= 1
    assert (mirrored.label[::-1, ::-1] == resized.label).mean() > 0.97
    assert aligned_fraction(resized) > 0.85


def test_enlarging_by_an_integer_repeats_label_pixels():
    label = np.random.default_rng(0).integers(0, 5, (7, 7)).astype(np.uint8)
    resized = resize(Sample(np.zeros((7, 7, 3), np.uint8), label, ""), 21)
    np.testing.assert_array_equal(resized.label, np.kron(label, np.ones((3, 3), np.uint8)))


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_flip(horizontal, vertical):
    sample = encoded(40, 56)
    step = (slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1))
    flipped = flip(sample, horizontal=horizontal, vertical=vertical)
    np.testing.assert_array_equal(flipped.image, sample.image[step])
    np.testing.assert_array_equal(flipped.label, sample.label[step])


@pytest.mark.parametrize("quarters", range(4))
def test_rotate90(quarters):
    sample = encoded(40, 56)
    turned = rotate90(sample, quarters)
    np.testing.assert_array_equal(turned.image, np.rot90(sample.image, quarters))
    np.testing.assert_array_equal(turned.label, np.rot90(sample.label, quarters))


@given(st.floats(-1, 1), st.floats(0.01, 1.99), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_adjust_matches_the_formula(brightness, contrast, seed):
    image = np.random.default_rng(seed).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    exact = (image - image.mean()) * contrast + image.mean() + 255 * brightness
    adjusted = adjust(image, brightness=brightness, contrast=contrast)
    assert adjusted.dtype == np.uint8
    assert np.abs(adjusted - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-6


def test_adjust_saturates_and_leaves_its_argument_alone():
    image = np.full((4, 4, 3), 200, np.uint8)
    assert (adjust(image, brightness=1, contrast=1) == 255).all()
    assert (adjust(image, brightness=-1, contrast=1) == 0).all()
    assert (image == 200).all()


EVERYTHING = AugmentConfig(
    horizontal_flip=0.5, vertical_flip=0.5, rotate90=True, scale=[0.5, 2.0], brightness=0.2, contrast=0.3
)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 160), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_size_gives_a_crop(height, width, crop_size, seed):
    sample = encoded(height, width)
    crop = TrainTransform(EVERYTHING, crop_size, IGNORE)(sample, np.random.default_rng(seed))
    assert crop.image.shape == (crop_size, crop_size, 3)
    assert crop.label.shape == (crop_size, crop_size)
    assert crop.image.dtype == crop.label.dtype == np.uint8
    assert set(np.unique(crop.label)) <= {*np.unique(sample.label), IGNORE}


def test_alignment_under_all_geometric_transforms_together():
    augment = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, rotate90=True, scale=[0.7, 2.0])
    transform = TrainTransform(augment, 96, IGNORE)
    for seed in range(40):
        crop = transform(encoded(150, 110, seed), np.random.default_rng(seed))
        assert aligned_fraction(crop) > 0.85


def test_a_small_image_is_held_whole_and_padded_with_void():
    sample = encoded(20, 200)
    transform = TrainTransform(AugmentConfig(), 64, IGNORE)
    tops = set()
    for seed in range(30):
        crop = transform(sample, np.random.default_rng(seed))
        rows = np.flatnonzero((crop.label != IGNORE).all(axis=1))
        assert len(rows) == 20
        assert (crop.label == IGNORE).sum() == 44 * 64
        tops.add(rows[0])
    assert len(tops) > 10


def test_without_augmentation_every_crop_position_is_drawn():
    positions = np.arange(9, dtype=np.uint8).reshape(3, 3)
    sample = Sample(np.repeat(positions[..., None], 3, axis=2), positions, "")
    transform = TrainTransform(AugmentConfig(), 2, IGNORE)
    rng = np.random.default_rng(0)
    corners = [int(transform(sample, rng).label[0, 0]) for _ in range(400)]
    values, counts = np.unique(corners, return_counts=True)
    assert values.tolist() == [0, 1, 3, 4]
    assert counts.min() > 60


@pytest.mark.parametrize(
    ("augment", "count"),
    [
        (AugmentConfig(), 1),
        (AugmentConfig(horizontal_flip=1.0), 1),
        (AugmentConfig(horizontal_flip=0.5), 2),
        (AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5), 4),
        (AugmentConfig(rotate90=True), 4),
        (AugmentConfig(horizontal_flip=0.5, rotate90=True), 8),
    ],
)
def test_orientations_that_occur(augment, count):
    label = np.random.default_rng(0).integers(0, 9, (32, 32)).astype(np.uint8)
    sample = Sample(np.repeat(label[..., None], 3, axis=2), label, "")
    transform = TrainTransform(augment, 32, IGNORE)
    rng = np.random.default_rng(1)
    assert len({transform(sample, rng).label.tobytes() for _ in range(150)}) == count


def test_scale_is_uniform_in_its_logarithm():
    # A horizontal ramp: the crop's slope tells its scale.
    ramp = np.repeat(np.arange(0, 250, dtype=np.uint8)[None], 250, axis=0)
    sample = Sample(np.repeat(ramp[..., None], 3, axis=2), ramp, "")
    transform = TrainTransform(AugmentConfig(scale=[0.5, 2.0]), 64, IGNORE)
    rng = np.random.default_rng(0)
    logs = []
    for _ in range(400):
        label = transform(sample, rng).label[0].astype(int)
        logs.append(-np.log2((label[-1] - label[0]) / 63))
    assert min(logs) > -1.05
    assert max(logs) < 1.1
    assert abs(np.mean(logs)) < 0.1
    assert abs(np.std(logs) - 2 / 12**0.5) < 0.07


def test_the_same_generator_state_gives_the_same_crop():
    sample = encoded(200, 180)
    transform = TrainTransform(EVERYTHING, 64, IGNORE)
    one, other, third = (transform(sample, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.label, other.label)
    assert not np.array_equal(one.image, third.image)


def test_a_sample_is_never_written_to():
    sample = encoded(80, 80)
    sample.image.setflags(write=False)
    sample.label.setflags(write=False)
    transform = TrainTransform(EVERYTHING, 64, IGNORE)
    for seed in range(20):
        transform(sample, np.random.default_rng(seed))


FULL = AugmentConfig(
    scale=[0.8, 1.25],
    rotation=20.0,
    elastic=2.0,
    gamma=[0.8, 1.25],
    saturation=0.3,
    hue=0.1,
    blur=1.0,
    noise=0.05,
    class_crops=0.5,
    max_void=0.5,
)


def test_everything_at_once_is_a_function_of_the_generator():
    sample = cells_sample()
    transform = TrainTransform(FULL, 48, 255)
    one, same, other = (transform(sample, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.label, same.label)
    assert one.image.shape == (48, 48, 3)
    assert one.label.shape == (48, 48)
    assert not np.array_equal(one.image, other.image)


def test_what_was_added_does_not_change_what_the_others_draw():
    sample = cells_sample()
    plain = AugmentConfig(horizontal_flip=0.5, rotate90=True, scale=[0.8, 1.25], brightness=0.1)
    noisy = replace(plain, noise=0.02)
    for seed in range(5):
        one, other = (
            TrainTransform(augment, 32, 255)(sample, np.random.default_rng(seed)) for augment in (plain, noisy)
        )
        np.testing.assert_array_equal(one.label, other.label)
        assert not np.array_equal(one.image, other.image)


def test_crops_on_a_class_find_the_rare_one():
    """One pixel in 4096 is of class 1, so that one random crop of 16 x 16 in 16 holds it."""
    label = np.zeros((64, 64), np.uint8)
    label[50, 7] = 1
    sample = Sample(np.zeros((64, 64, 3), np.uint8), label, "needle")
    found = {}
    for share in (0.0, 1.0):
        transform = TrainTransform(AugmentConfig(class_crops=share), 16, 255)
        found[share] = np.mean([1 in transform(sample, np.random.default_rng(seed)).label for seed in range(300)])
    assert found[0.0] < 0.2
    assert 0.42 < found[1.0] < 0.68  # each of the two classes as likely, and some by chance


def test_a_crop_with_too_much_void_is_drawn_again():
    label = np.full((64, 64), 255, np.uint8)
    label[:32] = 0
    sample = Sample(np.zeros((64, 64, 3), np.uint8), label, "half")
    shares = {}
    for max_void in (1.0, 0.25):
        transform = TrainTransform(AugmentConfig(max_void=max_void), 24, 255)
        crops = [transform(sample, np.random.default_rng(seed)).label for seed in range(60)]
        shares[max_void] = [(crop == 255).mean() for crop in crops]
    assert max(shares[1.0]) > 0.9
    assert np.mean(np.array(shares[0.25]) <= 0.25) >= 0.9
    only_void = sample._replace(label=np.full((64, 64), 255, np.uint8))
    transform = TrainTransform(replace(FULL, class_crops=1.0), 24, 255)
    assert (transform(only_void, np.random.default_rng(0)).label == 255).all()


def test_a_transform_of_another_package_joins_in():
    def invert(augment, ignore_index):
        return lambda sample, rng: sample._replace(image=255 - sample.image)

    TRANSFORMS.register("invert", invert)
    try:
        sample = cells_sample()
        plain, inverted = (
            TrainTransform(AugmentConfig(extra=extra), 32, 255)(sample, np.random.default_rng(0))
            for extra in ([], ["invert"])
        )
        np.testing.assert_array_equal(inverted.image, 255 - plain.image)
        assert compose(["augment.extra=[invert]"]).augment.extra == ["invert"]
    finally:
        TRANSFORMS.unregister("invert")
    with pytest.raises(ConfigError, match="unknown transform 'inverse'"):
        compose(["augment.extra=[inverse]"])


def cells_sample():
    return Cells(CellsConfig(num_train=1, image_size=96), "train")[0]
