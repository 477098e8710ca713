"""Label maps are written as masks and as pictures with a legend."""

import numpy as np
import pytest
from PIL import Image

from fcnlab.drawing.label_maps import overlay, write_mask
from fcnlab.drawing.lettering import ROW
from fcnlab.drawing.palette import default_palette


def test_a_mask_holds_indices_and_shows_colours(tmp_path):
    labels = np.arange(250, dtype=np.uint8).reshape(10, 25)
    write_mask(tmp_path / "below" / "mask.png", labels, default_palette(250))
    image = Image.open(tmp_path / "below" / "mask.png")
    np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), default_palette(250)[labels])
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["mask.png"]


@pytest.mark.parametrize("size", [(1, 1), (40, 60), (700, 300)])
def test_image_and_classes_are_side_by_side(size):
    height, width = size
    image = np.full((height, width, 3), 200, np.uint8)
    labels = np.ones(size, np.uint8)
    colours = np.array([[0, 0, 0], [100, 50, 0]], np.uint8)
    picture = overlay(image, labels, colours, ["a", "b"], "prediction")
    if width < 80:  # it is enlarged, so that there is room for the titles
        height, width = (-(-80 // width) * side for side in size)
    gap = max(width // 64, 4)
    first, second = picture[ROW : ROW + height, :width], picture[ROW : ROW + height, width + gap : 2 * width + gap]
    assert (first == 200).all()
    assert (second == 100 + colours[1] // 2).all()
    for start in (0, width + gap):
        assert (picture[:ROW, start : start + width] < 100).any()


def test_a_large_image_is_made_smaller():
    picture = overlay(
        np.zeros((3000, 1500, 3), np.uint8), np.zeros((3000, 1500), np.uint8), default_palette(2), ["a", "b"], "label"
    )
    assert picture.shape[0] == 1024 + ROW
    assert picture.shape[1] < 1300


def test_of_many_classes_the_legend_names_those_in_sight():
    colours = default_palette(200)
    labels = np.zeros((64, 64), np.uint8)
    labels[:20] = 77
    picture = overlay(
        np.zeros((64, 64, 3), np.uint8), labels, colours, [f"class {index}" for index in range(200)], "label"
    )
    legend = picture[:, 2 * (128 + 4) :]
    seen = {tuple(colour) for colour in legend.reshape(-1, 3).tolist()}
    assert {tuple(colours[0].tolist()), tuple(colours[77].tolist())} <= seen
    assert tuple(colours[78].tolist()) not in seen


def test_a_name_may_have_any_letters_and_length():
    names = ["Hülle", "клетка", "a name that goes on for much longer than there is room"]
    picture = overlay(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8), default_palette(3), names, "label")
    assert picture.shape[1] < 550
