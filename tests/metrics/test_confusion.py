import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import confusion_matrix, f1_score

from fcnlab.metrics.confusion import ConfusionMatrix

VOID = 255
SUMMARY = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")


def of_counts(counts):
    matrix = ConfusionMatrix(len(counts), VOID)
    matrix.counts += np.array(counts)
    return matrix


def test_hand_worked_example():
    matrix = ConfusionMatrix(3, VOID)
    labels = np.array([[0, 0, 0, 0], [1, 1, 2, VOID]], np.uint8)
    predictions = np.array([[0, 0, 0, 1], [1, 2, 2, 0]], np.uint8)
    matrix.update(labels, predictions)
    assert matrix.counts.dtype == np.int64
    assert matrix.counts.tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert matrix.iou.tolist() == [3 / 4, 1 / 3, 1 / 2]
    assert matrix.summary() == pytest.approx(
        {
            "pixel_accuracy": 5 / 7,
            "mean_accuracy": (3 / 4 + 1 / 2 + 1) / 3,
            "mean_iou": (3 / 4 + 1 / 3 + 1 / 2) / 3,
            "frequency_weighted_iou": (4 * 3 / 4 + 2 / 3 + 1 / 2) / 7,
        }
    )


def test_a_class_in_neither_label_nor_prediction_is_left_out():
    with_absent, without = of_counts([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), of_counts([[3, 1], [2, 4]])
    assert np.isnan(with_absent.iou[2])
    assert with_absent.summary() == without.summary()


def test_a_class_only_predicted_counts_in_the_iou_but_has_no_accuracy():
    matrix = of_counts([[3, 1], [0, 0]])
    assert matrix.iou.tolist() == [3 / 4, 0]
    assert matrix.mean_iou == 3 / 8
    assert matrix.mean_accuracy == 3 / 4
    assert matrix.frequency_weighted_iou == 3 / 4


def test_a_class_only_labelled_counts_everywhere():
    matrix = of_counts([[4, 0], [2, 0]])
    assert matrix.iou.tolist() == [4 / 6, 0]
    assert matrix.mean_accuracy == 1 / 2


@pytest.mark.parametrize("labels", [np.zeros(0, np.int32), np.full(4, VOID, np.int32)], ids=["empty", "void"])
def test_no_pixel_gives_nan(labels):
    matrix = ConfusionMatrix(2, VOID)
    matrix.update(labels, np.zeros_like(labels))
    assert not matrix.counts.any()
    assert all(np.isnan(value) for value in matrix.summary().values())


def test_void_may_lie_among_the_classes():
    matrix = ConfusionMatrix(3, 0)
    matrix.update(np.array([0, 0, 1, 2]), np.array([1, 2, 1, 0]))
    assert matrix.counts.tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]


def test_many_classes_in_eight_bits():
    matrix = ConfusionMatrix(200, VOID)
    matrix.update(np.array([199, 199], np.uint8), np.array([198, 199], np.uint8))
    assert (matrix.counts[199, 198], matrix.counts[199, 199], matrix.counts.sum()) == (1, 1, 2)


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 3], [0, 0], "labels must be from 0 to 2, but there is 3"),
        ([0, -1], [0, 0], "labels must be from 0 to 2, but there is -1"),
        ([0, 1], [0, 3], "predictions must be from 0 to 2, but there is 3"),
        ([0, 1], [VOID, 0], "predictions must be from 0 to 2, but there is 255"),
        ([0, 1], [0], r"labels and predictions differ in shape: \(2,\) and \(1,\)"),
        ([0.0, 1.0], [0, 1], "labels must be integers, not float64"),
        ([0, 1], [0.5, 1.0], "predictions must be integers, not float64"),
    ],
)
def test_refuses_what_it_cannot_count(labels, predictions, message):
    matrix = ConfusionMatrix(3, VOID)
    with pytest.raises(ValueError, match=message):
        matrix.update(np.array(labels), np.array(predictions))
    assert not matrix.counts.any()


def test_refuses_to_merge_another_kind():
    with pytest.raises(ValueError, match="cannot merge a confusion matrix of 3 classes"):
        ConfusionMatrix(2, VOID).merge(ConfusionMatrix(3, VOID))
    with pytest.raises(ValueError, match="ignore_index 0 into one of 2 and 255"):
        ConfusionMatrix(2, VOID) + ConfusionMatrix(2, 0)


@st.composite
def segmentations(draw):
    """The number of classes, labels with some void, and predictions."""
    num_classes = draw(st.integers(2, 6))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=8))
    classes = st.integers(0, num_classes - 1)
    labels = draw(arrays.arrays(np.uint8, shape, elements=classes | st.just(VOID)))
    return num_classes, labels, draw(arrays.arrays(np.int32, shape, elements=classes))


@settings(deadline=None)  # the machine may be shared
@given(segmentations())
def test_counts_are_scikit_learns(segmentation):
    num_classes, labels, predictions = segmentation
    matrix = ConfusionMatrix(num_classes, VOID)
    matrix.update(labels, predictions)
    counted = labels != VOID
    if counted.any():
        expected = confusion_matrix(labels[counted], predictions[counted], labels=range(num_classes))
        np.testing.assert_array_equal(matrix.counts, expected)
    else:
        assert not matrix.counts.any()


@settings(deadline=None)
@given(segmentations())
def test_metrics_by_sets_of_pixels(segmentation):
    num_classes, labels, predictions = segmentation
    matrix = ConfusionMatrix(num_classes, VOID)
    matrix.update(labels, predictions)
    truth, guess = labels[labels != VOID], predictions[labels != VOID]
    if truth.size == 0:
        return
    accuracies, ious, frequency_weighted = [], [], 0.0
    for index in range(num_classes):
        is_truth, is_guess = truth == index, guess == index
        if is_truth.any():
            accuracies.append(np.mean(is_guess[is_truth]))
        if (is_truth | is_guess).any():
            ious.append(np.sum(is_truth & is_guess) / np.sum(is_truth | is_guess))
            frequency_weighted += np.mean(is_truth) * ious[-1]
    expected = (np.mean(truth == guess), np.mean(accuracies), np.mean(ious), frequency_weighted)
    assert matrix.summary() == pytest.approx(dict(zip(SUMMARY, expected, strict=True)))


@settings(deadline=None)
@given(segmentations(), st.integers(0, 8))
def test_parts_add_up_to_the_whole(segmentation, cut):
    num_classes, labels, predictions = segmentation
    whole, first, second = (ConfusionMatrix(num_classes, VOID) for _ in range(3))
    whole.update(labels, predictions)
    first.update(labels[:cut], predictions[:cut])
    second.update(labels[cut:], predictions[cut:])
    before = first.counts.copy()
    np.testing.assert_array_equal((first + second).counts, whole.counts)
    np.testing.assert_array_equal(first.counts, before)
    first.merge(second)
    np.testing.assert_array_equal(first.counts, whole.counts)


@settings(deadline=None)
@given(segmentations())
def test_a_perfect_prediction_scores_one(segmentation):
    num_classes, labels, _ = segmentation
    matrix = ConfusionMatrix(num_classes, VOID)
    matrix.update(labels, np.where(labels == VOID, 0, labels))
    if matrix.counts.any():
        assert matrix.summary() == dict.fromkeys(SUMMARY, 1.0)


def test_dice_is_the_f1_score_of_each_class():
    labels, predictions = np.random.default_rng(3).integers(0, 4, (2, 500))
    matrix = ConfusionMatrix(5, 255)
    matrix.update(labels, predictions)
    expected = f1_score(labels, predictions, labels=range(4), average=None)
    np.testing.assert_allclose(matrix.dice[:4], expected)
    assert np.isnan(matrix.dice[4])
