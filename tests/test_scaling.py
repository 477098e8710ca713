"""The arithmetic of several workers, in ``experiments/scaling``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "scaling"))
from arithmetic import BYTES, LINKS, Link, dominated_from, exchange_seconds, step_seconds, table

from fcnlab.models import build_model

LINK = Link("a link", 1e6, 0.01)


def test_one_worker_exchanges_nothing():
    assert exchange_seconds(5e6, 1, LINK) == 0
    assert step_seconds(3.0, 5e6, 1, LINK) == 3.0


def test_a_ring_sends_every_byte_almost_twice():
    assert exchange_seconds(1e6, 2, LINK) == pytest.approx(1 + 0.02)  # half is reduced, and half is gathered
    assert exchange_seconds(1e6, 4, LINK) == pytest.approx(1.5 + 0.06)
    assert exchange_seconds(1e6, 1000, Link("", 1e6, 0)) == pytest.approx(1.998)


def test_a_fixed_batch_is_shared_and_a_growing_one_is_not():
    assert step_seconds(8.0, 1e6, 4, LINK) == pytest.approx(2 + 1.56)
    assert step_seconds(8.0, 1e6, 4, LINK, fixed_batch=False) == pytest.approx(8 + 1.56)


def test_the_exchange_dominates_from_the_first_number_at_which_it_is_longer():
    first = dominated_from(8.0, 1e6, LINK)
    assert exchange_seconds(1e6, first, LINK) > 8 / first
    assert exchange_seconds(1e6, first - 1, LINK) <= 8 / (first - 1)
    assert dominated_from(1e9, 1.0, Link("", 1e9, 0), limit=64) is None


@pytest.mark.parametrize("width", [0.25, 0.5])
def test_the_bytes_are_those_of_the_network(width):
    network = build_model("fcn8s", 2, width=width)
    bytes_of_it = 4 * sum(parameter.size for parameter in network.trainable_params())
    assert BYTES[width] == pytest.approx(bytes_of_it, rel=0.01)


def test_the_table_has_a_row_for_each_link():
    assert table(0.9, BYTES[0.25]).count("\n") == len(LINKS) + 1
