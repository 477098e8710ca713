"""The calibration error by hand and by simulation, and errors that a review finds first."""

import math

import numpy as np
import pytest

from fcnlab.metrics.calibration import Calibration, found_by_review


def test_by_hand():
    """Two bins: in the lower, 2 of 4 pixels are right with a confidence of 0.4; in the upper, 3 of 4 with 0.9."""
    label = np.array([[0, 1, 0, 1], [1, 1, 1, 0], [255, 255, 0, 1]])[:2]
    prediction = np.array([[0, 1, 1, 0], [1, 1, 1, 1]])
    confidence = np.array([[0.4] * 4, [0.9] * 4], np.float32)
    found = Calibration(bins=2)
    found.update(label, prediction, confidence, 255)
    assert (found.pixels.tolist(), found.right.tolist()) == ([4, 4], [2, 3])
    assert found.error == pytest.approx((4 * 0.1 + 4 * 0.15) / 8)
    found.update(np.full((2, 2), 255), np.zeros((2, 2), int), np.ones((2, 2)), 255)  # void
    assert found.pixels.sum() == 8
    assert found.accuracy.tolist() == [0.5, 0.75]
    with pytest.raises(ValueError, match="shapes differ"):
        found.update(label, prediction[:1], confidence, 255)


def test_a_network_that_is_right_as_often_as_it_is_sure_has_no_error():
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 200_000)
    right = random.random(200_000) < sure
    honest, proud = Calibration(), Calibration()
    honest.update(np.zeros(200_000, int), 1 - right, sure, 255)
    proud.update(np.zeros(200_000, int), 1 - right, np.sqrt(sure), 255)
    assert honest.error < 0.005
    assert proud.error == pytest.approx(np.mean(np.sqrt(sure) - sure), abs=0.005)
    assert math.isnan(Calibration().error)


def test_full_confidence_is_in_the_last_bin():
    found = Calibration(bins=4)
    found.update(np.array([0, 0]), np.array([0, 1]), np.array([1.0, 0.0]), 255)
    assert found.pixels.tolist() == [1, 0, 0, 1]


def test_a_review_of_the_most_doubtful_images():
    assert found_by_review([0.1, 0.9, 0.2, 0.3, 0.1], [5, 60, 20, 10, 5]) == pytest.approx(0.6)
    assert found_by_review([0.1, 0.9, 0.2, 0.3, 0.1], [5, 60, 20, 10, 5], 0.4) == pytest.approx(0.7)
    assert found_by_review([0.5, 0.5], [1, 3]) == pytest.approx(0.25)  # one of two
    assert math.isnan(found_by_review([0.1], [0]))
