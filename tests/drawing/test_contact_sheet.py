"""The contact sheet of a training."""

import numpy as np

from fcnlab.drawing.contact_sheet import MOST_ROWS, contact_sheet, contact_strip, shown_places
from fcnlab.drawing.lettering import ROW
from fcnlab.drawing.side_by_side import FALSE, MISSED


def strip(size, titles=("worst", "median", "best")):
    image = np.full((*size, 3), 250, np.uint8)
    label = np.zeros(size, np.uint8)
    label[: size[0] // 2] = 1
    prediction = np.zeros((size[0] // 2, size[1] // 2), np.uint8)
    prediction[:, : size[1] // 4] = 1
    images = [(title, image, label, prediction) for title in titles]
    return contact_strip(images, "step 1", class_names=["a", "b"], ignore_index=255)


def test_a_row_shows_three_images_with_their_errors_at_the_size_of_the_predictions():
    picture = strip((100, 200))
    # Of each image, a quarter of the pixels is missed and a quarter is false.
    panel = 50 * 100
    for colour in (MISSED, FALSE):
        count = (picture == colour).all(axis=-1).sum()
        assert 3 * panel / 4 <= count < 3 * panel / 4 + ROW**2  # the legend has a square of each
    assert (picture[:ROW] < 100).any()


def test_rows_of_different_widths_stand_below_each_other():
    first, second = strip((100, 240)), strip((100, 100))
    sheet = contact_sheet([first, second])
    np.testing.assert_array_equal(sheet[: len(first), : first.shape[1]], first)
    assert first.shape[1] > second.shape[1]
    below = sheet[len(sheet) - len(second) - 6 :]
    np.testing.assert_array_equal(below[: len(second), : second.shape[1]], second)
    assert (below[:, second.shape[1] :] == 255).all()


def test_of_many_evaluations_the_first_the_last_and_some_between_are_shown():
    assert shown_places(1) == [0]
    assert shown_places(MOST_ROWS) == list(range(MOST_ROWS))
    for count in (MOST_ROWS + 1, 40, 1000):
        places = shown_places(count)
        assert len(places) == MOST_ROWS
        assert (places[0], places[-1]) == (0, count - 1)
        steps = np.diff(places)
        assert steps.max() - steps.min() <= 1
