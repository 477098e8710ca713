"""The colours of classes, measured with another model of colour blindness than the package's."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from fcnlab.config import compose
from fcnlab.drawing.palette import class_palette, default_palette, voc_palette
from fcnlab.drawing.side_by_side import FALSE, MISSED, WRONG_CLASS

# Machado, Oliveira & Fernandes 2009, for linear RGB at severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def smallest_distance(colours, vision):
    scaled = np.asarray(colours) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)[None])[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return distances[~np.eye(len(lab), dtype=bool)].min()


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(("classes", "least"), [(2, 100), (7, 15), (21, 15), (64, 4)])
def test_the_colour_blind_can_tell_default_colours_apart(vision, classes, least):
    assert smallest_distance(default_palette(classes), vision) > least
    assert smallest_distance([FALSE, MISSED, WRONG_CLASS, [60] * 3, [128] * 3], vision) > 20


def test_no_default_colour_is_black_void_or_twice():
    for classes in (1, 2, 7, 8, 255):
        colours = default_palette(classes)
        assert colours.shape == (classes, 3)
        assert colours.dtype == np.uint8
        assert len({tuple(colour) for colour in colours.tolist()}) == classes
        assert rgb2lab(colours[None] / 255.0)[0, :, 0].min() > 25
        assert not (colours == 128).all(axis=1).any()
    np.testing.assert_array_equal(default_palette(255)[:21], default_palette(21))


def test_voc_has_vocs_colours():
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    np.testing.assert_array_equal(voc_palette(6), voc)
    assert len({tuple(colour) for colour in voc_palette(255)}) == 255
    names = compose(["dataset=voc2012", "dataset.root=x"]).dataset.class_names
    assert len(names) == 21
    np.testing.assert_array_equal(class_palette(names), voc_palette(21))


def test_declared_colours_count_before_all_others():
    declared = [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(class_palette(["a", "b"], declared), declared)
    np.testing.assert_array_equal(class_palette(["a", "b"], np.array(declared)), declared)
    np.testing.assert_array_equal(class_palette(["a", "b"]), default_palette(2))
