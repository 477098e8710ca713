"""Pictures of an image, its label and its prediction, compared with pixels by hand."""

import numpy as np

from fcnlab.drawing.palette import palette
from fcnlab.drawing.side_by_side import comparison


def test_the_palette_is_vocs():
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    np.testing.assert_array_equal(palette(6), voc)
    assert len({tuple(colour) for colour in palette(255)}) == 255


def test_wrong_pixels_are_yellow_and_void_is_not_wrong():
    image = np.full((64, 64, 3), 200, np.uint8)
    label = np.zeros((64, 64), np.uint8)
    label[0, 0] = 255
    prediction = np.zeros((64, 64), np.int32)
    prediction[0, 0] = 1
    prediction[5, 7] = 1
    picture = comparison(image, label, prediction, num_classes=2, ignore_index=255)
    assert picture.shape == (64, 3 * 64 + 2 * 2, 3)
    np.testing.assert_array_equal(picture[:, :64], image)
    np.testing.assert_array_equal(picture[0, 66], [128, 128, 128])
    yellow = (picture == (255, 255, 0)).all(axis=2)
    assert np.argwhere(yellow).tolist() == [[5, 132 + 7]]


def test_a_large_picture_is_made_smaller():
    image = np.zeros((1024, 1024, 3), np.uint8)
    picture = comparison(image, image[..., 0], image[..., 0], num_classes=2, ignore_index=255)
    assert picture.shape[0] == 512
