"""Wilcoxon's signed-rank test, against scipy's and against all signs written out."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from fcnlab.comparison.wilcoxon import signed_rank_p


@pytest.mark.parametrize("count", [6, 9, 25])
def test_without_ties_it_is_scipys_exact_test(count):
    for seed in range(10):
        differences = np.random.default_rng(seed).normal(0.3, 1, count)
        assert signed_rank_p(differences) == pytest.approx(
            stats.wilcoxon(differences, method="exact").pvalue, abs=1e-12
        )


def test_with_ties_it_counts_all_signs():
    differences = [0.1, 0.1, -0.1, 0.3, 0.3, 0.5, -0.2, 0.2]
    ranks = stats.rankdata(np.abs(differences))
    middle = ranks.sum() / 2
    seen = abs(ranks[np.array(differences) > 0].sum() - middle)
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=8)
    ]
    expected = np.mean([abs(found - middle) >= seen - 1e-9 for found in sums])
    assert signed_rank_p(differences) == pytest.approx(expected)


def test_few_pairs_and_pairs_without_a_difference():
    assert math.isnan(signed_rank_p([0.1] * 5))
    assert math.isnan(signed_rank_p([0.1] * 5 + [0.0]))
    assert signed_rank_p([0.1] * 6) == pytest.approx(2 / 64)
    assert signed_rank_p([0.1] * 6 + [0.0] * 3) == pytest.approx(2 / 64)
