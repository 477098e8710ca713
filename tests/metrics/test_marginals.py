"""Many confusion matrices at once have the metrics that each of them has alone."""

import numpy as np
import pytest

from fcnlab.metrics.confusion import ConfusionMatrix
from fcnlab.metrics.marginals import is_known, marginals, measure

NAMES = ["sky", "a/b", "road", "car"]


def matrices():
    """Random matrices, some with classes that are absent, or labelled or predicted alone, and an empty one."""
    random = np.random.default_rng(0)
    counts = (
        random.integers(0, 1000, (40, 4, 4)) * (random.random((40, 4, 1)) > 0.3) * (random.random((40, 1, 4)) > 0.3)
    )
    counts[7] = 0
    return counts


def alone(counts):
    matrix = ConfusionMatrix(4, 255)
    matrix.counts += counts
    return {f"val/{name}": value for name, value in matrix.summary().items()} | {
        f"val/iou/{name}": value for name, value in zip(NAMES, matrix.iou, strict=True)
    }


def test_each_metric_is_that_of_the_matrix_alone():
    counts = matrices()
    expected = [alone(one) for one in counts]
    for metric in expected[0]:
        found = measure(marginals(counts), metric, NAMES)
        np.testing.assert_allclose(found, [one[metric] for one in expected], rtol=1e-13, err_msg=metric)
        np.testing.assert_array_equal(np.isnan(found), [np.isnan(one[metric]) for one in expected])


def test_marginals_add_up_as_matrices_do():
    counts = matrices()
    weights = np.random.default_rng(1).integers(0, 3, (5, 40)).astype(float)
    drawn = np.tensordot(weights, marginals(counts), 1)
    together = np.tensordot(weights, counts, 1)
    np.testing.assert_array_equal(drawn, marginals(together))


def test_a_loss_and_a_class_that_is_not_there_do_not_follow():
    assert not is_known("val/loss", NAMES)
    assert not is_known("val/iou/cow", NAMES)
    assert is_known("val/iou/a/b", NAMES)
    with pytest.raises(ValueError, match="val/loss does not follow"):
        measure(marginals(matrices()), "val/loss", NAMES)
