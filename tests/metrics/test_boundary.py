"""Boundary F1 against distances counted out pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.metrics.boundary import BoundaryF1

VOID = 255


def boundary_pixels(labels, void, index):
    """Return the (row, column) pairs of the pixels of a class that have a neighbour of another class."""
    height, width = labels.shape
    found = []
    for row in range(height):
        for column in range(width):
            if labels[row, column] != index or void[row, column]:
                continue
            for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                other = (row + down, column + right)
                if 0 <= other[0] < height and 0 <= other[1] < width and not void[other] and labels[other] != index:
                    found.append((row, column))
                    break
    return np.array(found, dtype=float).reshape(-1, 2)


def expected_score(label, prediction, index, tolerance):
    void = label == VOID
    true, found = (boundary_pixels(array, void, index) for array in (label, prediction))
    if not len(true) and not len(found):
        return None
    if not len(true) or not len(found):
        return 0.0
    distances = np.linalg.norm(true[:, None] - found[None], axis=2)
    recall, precision = (distances.min(axis=axis) <= tolerance for axis in (1, 0))
    recall, precision = recall.mean(), precision.mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tolerance=st.sampled_from([0.0, 1.0, 1.5, 2.0]))
def test_it_is_the_share_of_boundary_pixels_that_lie_near(seed, tolerance):
    random = np.random.default_rng(seed)
    label = random.choice([0, 1, 2, VOID], (9, 11), p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    prediction = random.integers(0, 3, label.shape).astype(np.uint8)
    metric = BoundaryF1(3, VOID, tolerance)
    metric.update(label, prediction)
    for index in range(3):
        expected = expected_score(label, prediction, index, tolerance)
        assert metric.images[index] == (expected is not None)
        if expected is not None:
            assert metric.scores[index] == pytest.approx(expected)


def square(offset=0):
    label = np.zeros((40, 40), np.uint8)
    label[10 + offset : 30 + offset, 10:30] = 1
    return label


def test_a_shift_within_the_tolerance_costs_nothing_and_beyond_it_does():
    scores = {}
    for tolerance in (2.0, 1.0):
        metric = BoundaryF1(2, VOID, tolerance)
        metric.update(square(), square(2))
        scores[tolerance] = metric.scores[1]
    assert scores[2.0] == 1
    assert 0.4 < scores[1.0] < 0.9


def test_images_count_alike_and_a_class_without_boundary_not_at_all():
    metric = BoundaryF1(3, VOID, 0.0)
    metric.update(square(), square())
    metric.update(square(), np.zeros_like(square()))
    metric.update(np.ones((8, 8), np.uint8), np.ones((8, 8), np.uint8))  # one class: no boundary
    assert metric.images.tolist() == [2, 2, 0]
    np.testing.assert_array_equal(metric.scores, [0.5, 0.5, np.nan])
    assert metric.mean == 0.5
    assert np.isnan(BoundaryF1(2, VOID, 1.0).mean)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        BoundaryF1(2, VOID, 1.0).update(np.zeros((4, 4), int), np.zeros((4, 5), int))
