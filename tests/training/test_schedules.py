"""Schedules by hand."""

import math

import pytest

from fcnlab.training.schedules import constant, cosine, poly


def test_constant_is_one():
    assert {constant(step, 10) for step in range(10)} == {1.0}


def test_poly_by_hand():
    assert poly(0, 4) == 1
    assert poly(1, 4, power=0.9) == pytest.approx(0.75**0.9)
    assert poly(3, 4, power=2) == pytest.approx(1 / 16)


def test_cosine_by_hand():
    assert [cosine(step, 4) for step in range(4)] == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )
    assert cosine(2, 4, final=0.2) == pytest.approx(0.6)


@pytest.mark.parametrize("schedule", [constant, poly, cosine])
def test_warm_up_rises_linearly_to_the_peak(schedule):
    factors = [schedule(step, 10, warmup_steps=4) for step in range(10)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize("schedule", [poly, cosine])
def test_a_warm_up_longer_than_the_training_is_no_error(schedule):
    assert [schedule(step, 2, warmup_steps=4) for step in range(2)] == [0.25, 0.5]
