"""Pictures of an image, its label, its prediction and its errors, compared with pixels by hand."""

import numpy as np

from fcnlab.drawing.lettering import ROW
from fcnlab.drawing.palette import default_palette
from fcnlab.drawing.side_by_side import FALSE, MISSED, WRONG_CLASS, comparison, error_entries, mark_errors


def test_each_kind_of_error_has_its_colour_and_void_is_not_wrong():
    image = np.full((1, 7, 3), 200, np.uint8)
    label = np.array([[0, 1, 2, 0, 1, 2, 255]])
    prediction = np.array([[0, 0, 0, 1, 2, 2, 1]])
    dimmed = (100, 100, 100)
    expected = [dimmed, MISSED, MISSED, FALSE, WRONG_CLASS, dimmed, dimmed]
    assert [tuple(colour) for colour in mark_errors(image, label, prediction, 255)[0].tolist()] == expected


def test_the_legend_says_what_the_kinds_mean():
    assert [text for _, text in error_entries(["membrane", "cell"])] == [
        "missed: taken for membrane",
        "false: taken for cell",
    ]
    texts = [text for _, text in error_entries(["road", "car", "tree"])]
    assert all(
        text.startswith(("missed: taken for ", "false: taken for ")) and len(text) <= 28
        for _, text in error_entries(["a name that is longer than any picture", "and another such name of a class"])
    )
    assert texts == ["missed: taken for road", "false: taken for another", "wrong class"]


def test_four_panels_stand_under_their_titles_beside_a_legend():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    label = random.choice([0, 1, 255], (96, 96)).astype(np.uint8)
    prediction = random.integers(0, 2, (96, 96), dtype=np.int32)
    picture = comparison(image, label, prediction, class_names=["a", "b"], ignore_index=255)
    titles, panels = picture[:ROW], [picture[ROW : ROW + 96, start : start + 96] for start in range(0, 400, 100)]
    for start in range(0, 400, 100):
        assert (titles[:, start : start + 96] < 100).any()
    np.testing.assert_array_equal(panels[0], image)
    colours = default_palette(2)
    np.testing.assert_array_equal(panels[1][label == 1], np.tile(colours[1], ((label == 1).sum(), 1)))
    assert (panels[1][label == 255] == 128).all()
    half = (image.astype(int) + colours[prediction]) / 2
    assert np.abs(panels[2] - half).max() <= 0.5
    np.testing.assert_array_equal(panels[3], mark_errors(image, label, prediction, 255))
    legend = {tuple(colour) for colour in picture[ROW:, 400:].reshape(-1, 3).tolist()}
    assert {*map(tuple, colours.tolist()), MISSED, FALSE} <= legend


def test_a_small_picture_is_enlarged_by_whole_pixels_and_a_large_one_made_smaller():
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    label = np.zeros((32, 32), np.uint8)
    picture = comparison(small, label, label, class_names=["a", "b"], ignore_index=255)
    np.testing.assert_array_equal(picture[ROW : ROW + 96, :96], small.repeat(3, axis=0).repeat(3, axis=1))
    image = np.zeros((1024, 1024, 3), np.uint8)
    picture = comparison(image, image[..., 0], image[..., 0], class_names=["a", "b"], ignore_index=255)
    assert picture.shape[0] == 512 + ROW
