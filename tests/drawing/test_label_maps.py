"""Label maps are written as masks and as pictures with a legend."""

import numpy as np
import pytest
from PIL import Image

from fcnlab.drawing.label_maps import overlay, write_mask
from fcnlab.drawing.palette import palette


def test_a_mask_holds_indices_and_shows_colours(tmp_path):
    labels = np.arange(250, dtype=np.uint8).reshape(10, 25)
    write_mask(tmp_path / "below" / "mask.png", labels, palette(250))
    image = Image.open(tmp_path / "below" / "mask.png")
    np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette(250)[labels])
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["mask.png"]


@pytest.mark.parametrize("size", [(1, 1), (40, 60), (700, 300)])
def test_image_and_classes_are_side_by_side(size):
    height, width = size
    image = np.full((height, width, 3), 200, np.uint8)
    labels = np.ones(size, np.uint8)
    colours = np.array([[0, 0, 0], [100, 50, 0]], np.uint8)
    picture = overlay(image, labels, colours, ["a", "b"])
    np.testing.assert_array_equal(picture[:height, :width], image)
    gap = max(width // 64, 4)
    np.testing.assert_array_equal(picture[:height, width + gap : 2 * width + gap], (image // 2 + colours[1] // 2))


def test_a_large_image_is_made_smaller():
    picture = overlay(np.zeros((3000, 1500, 3), np.uint8), np.zeros((3000, 1500), np.uint8), palette(2), ["a", "b"])
    assert picture.shape[0] == 1024
    assert picture.shape[1] < 1300


def test_of_many_classes_the_legend_names_those_in_sight():
    colours = palette(200)
    labels = np.zeros((64, 64), np.uint8)
    labels[:20] = 77
    picture = overlay(np.zeros((64, 64, 3), np.uint8), labels, colours, [f"class {index}" for index in range(200)])
    legend = picture[:, 2 * 64 + 8 :]
    seen = {tuple(colour) for colour in legend.reshape(-1, 3).tolist()}
    assert {tuple(colours[0].tolist()), tuple(colours[77].tolist())} <= seen
    assert tuple(colours[78].tolist()) not in seen


def test_a_name_may_have_any_letters_and_length():
    names = ["Hülle", "клетка", "a name that goes on for much longer than there is room"]
    picture = overlay(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8), palette(3), names)
    assert picture.shape[1] < 500
