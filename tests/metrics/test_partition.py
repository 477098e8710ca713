"""The ISBI 2012 scores against scikit-image."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnlab.metrics.partition import PartitionScores, components, thin

metrics = pytest.importorskip("skimage.metrics")
morphology = pytest.importorskip("skimage.morphology")
measure = pytest.importorskip("skimage.measure")


def cells_like(seed, side=96):
    """A smooth random field: membranes where it is near 0."""
    random = np.random.default_rng(seed)
    return cv2.GaussianBlur(random.standard_normal((side, side)), (0, 0), 6) * 20


def slice_and_prediction(seed):
    """Return a label, which is True in a cell, and a probability that is wrong in places."""
    field = np.abs(cells_like(seed))
    cell = field > 0.25
    noise = cells_like(seed + 1000) * 0.15
    return cell, 1 / (1 + np.exp(-8 * (field + noise - 0.3)))


@pytest.mark.parametrize("seed", range(4))
def test_thinning_is_guos_and_halls(seed):
    mask = np.abs(cells_like(seed)) < 0.4
    np.testing.assert_array_equal(thin(mask), morphology.thin(mask))


def test_thinning_keeps_what_lines_enclose():
    ring = np.zeros((30, 30), bool)
    ring[5:25, 5:25] = True
    ring[10:20, 10:20] = False
    thinned = thin(ring)
    assert components(~thinned).max() == 2
    assert thinned.sum() < ring.sum() / 2
    assert not thin(np.zeros((5, 5), bool)).any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.1, 0.9))
def test_thinning_neither_joins_nor_parts(seed, density):
    mask = np.random.default_rng(seed).random((20, 20)) < density
    thinned = thin(mask)
    assert not (thinned & ~mask).any()
    outside = (~np.pad(array, 1) for array in (mask, thinned))
    assert len({components(array).max() for array in outside}) == 1
    assert len({measure.label(array, connectivity=2).max() for array in (mask, thinned)}) == 1


def reference(cell, probability, threshold):
    """Both scores of one slice by scikit-image; a pixel on a predicted membrane is a cell of its own."""
    true = measure.label(cell, connectivity=1)
    membrane = np.pad(probability < threshold, 32, mode="edge")  # as if membranes continued beyond the image
    membrane = morphology.thin(membrane)[32:-32, 32:-32]
    found = measure.label(~membrane, connectivity=1)
    alone = found == 0
    found[alone] = found.max() + 1 + np.arange(alone.sum())
    error, *_ = metrics.adapted_rand_error(true, found, ignore_labels=(0,))
    # These are H(S | T) and H(T | S), where only pixels of the first image are ignored, as the challenge does.
    inside = true > 0
    splits = metrics.variation_of_information(true[inside], found[inside])
    entropies = [-sum(share * np.log2(share) for share in shares(values[inside])) for values in (true, found)]
    return 1 - error, (sum(entropies) - sum(splits)) / sum(entropies)


def shares(values):
    return np.unique(values, return_counts=True)[1] / values.size


@pytest.mark.parametrize("seed", range(4))
def test_one_slice_is_what_scikit_image_says(seed):
    cell, probability = slice_and_prediction(seed)
    scores = PartitionScores()
    scores.update(cell, probability)
    found = scores.scores
    for threshold, score in zip(scores.thresholds, found, strict=True):
        rand, information = reference(cell, probability, threshold)
        assert score.rand == pytest.approx(rand, abs=1e-9)
        assert score.information == pytest.approx(information, abs=1e-9)
    assert len({round(score.rand, 6) for score in found}) > 1  # the thresholds matter
    assert scores.best == (max(score.rand for score in found), max(score.information for score in found))


def test_several_slices_are_one_of_separate_cells():
    slices = [slice_and_prediction(seed) for seed in range(3)]
    scores = PartitionScores((0.5,))
    for cell, probability in slices:
        scores.update(cell, probability)
    # A membrane between slices that lie side by side separates all their cells.
    cells, probabilities = (
        np.hstack([np.pad(pair[position], ((0, 0), (0, 8))) for pair in slices]) for position in (0, 1)
    )
    together = PartitionScores((0.5,))
    together.update(cells, probabilities)
    assert scores.scores[0].rand == pytest.approx(together.scores[0].rand, abs=0.02)  # thinning meets the seam
    informations = []
    for cell, probability in slices:
        alone = PartitionScores((0.5,))
        alone.update(cell, probability)
        informations.append(alone.scores[0].information)
    assert min(informations) <= scores.scores[0].information <= max(informations)


def test_perfection_is_1_whatever_the_membranes_width():
    cell = np.ones((40, 40), bool)
    cell[:, 18:22] = False
    scores = PartitionScores((0.5,))
    wider = np.ones((40, 40))
    wider[:, 15:25] = 0
    scores.update(cell, wider)
    assert scores.scores[0].rand == pytest.approx(1, abs=1e-6)
    assert scores.scores[0].information == pytest.approx(1, abs=1e-6)


def test_a_merged_pair_costs_what_the_formula_says():
    cell = np.ones((10, 21), bool)
    cell[:, 10] = False
    scores = PartitionScores((0.5,))
    scores.update(cell, np.ones(cell.shape))  # no membrane found: one cell of two equal ones
    pairs = 2 * 100 * 99  # in one true cell, all of them also in one found cell
    assert scores.scores[0] == pytest.approx((2 * pairs / (pairs + 200 * 199), 0.0))


def test_nothing_but_membrane_says_nothing():
    scores = PartitionScores((0.5,))
    scores.update(np.zeros((4, 4), bool), np.ones((4, 4)))
    assert np.isnan(scores.scores[0].rand)
