"""The worst, the median and the best image of an evaluation."""

import numpy as np

from fcnlab.training.ranking import ROLES, Ranking, reduced


def ranking(values):
    found = Ranking()
    for index, value in enumerate(values):
        found.add(index, value, np.full((4, 6), index))
    return found


def test_they_are_found_by_their_iou_and_void_images_are_left_out():
    found = list(ranking([0.5, float("nan"), 0.9, 0.1, 0.7]))
    assert [(role, iou, index) for role, iou, index, _ in found] == [
        ("worst", 0.1, 3),
        ("median", 0.5, 0),
        ("best", 0.9, 2),
    ]
    for _, _, index, prediction in found:
        np.testing.assert_array_equal(prediction, np.full((4, 6), index))


def test_few_images_have_several_roles_and_none_has_none():
    assert list(ranking([])) == list(ranking([float("nan")])) == []
    assert [(role, index) for role, _, index, _ in ranking([0.4])] == [(role, 0) for role in ROLES]
    assert [index for _, _, index, _ in ranking([0.4, 0.4])] == [0, 0, 1]


def test_a_large_prediction_is_kept_small_and_holds_only_classes_of_it():
    prediction = np.random.default_rng(0).choice([3, 200], (1000, 500)).astype(np.int32)
    small = reduced(prediction.astype(np.uint8), 256)
    assert small.shape == (256, 128)
    assert set(np.unique(small)) == {3, 200}
    found = Ranking()
    found.add(0, 0.5, prediction)
    np.testing.assert_array_equal(next(iter(found))[3], small)
