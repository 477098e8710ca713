"""Weights fit as a whole, or are refused in one line."""

import numpy as np
import pytest
from conftest import refusal
from tiny_network import arrays

from fcnlab.models import build_model
from fcnlab.models.weights import load_weights


def network(name="fcn32s", num_classes=2, seed=0, width=1 / 64, **options):
    return build_model(name, num_classes=num_classes, width=width, seed=seed, **options)


def test_another_width_or_class_count_is_refused():
    assert "arch.width" in refusal(load_weights, network(), arrays(network(width=1 / 32)), "w")
    assert "score.weight" in refusal(load_weights, network(), arrays(network(num_classes=5)), "w")
    assert "score_pool4" in refusal(load_weights, network("fcn16s"), arrays(network()), "w")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_can_be_looked_at(caplog, bad):
    values = {name: array.copy() for name, array in arrays(network()).items()}
    values["fc7.weight"].flat[5] = bad
    shown = network()
    load_weights(shown, values, "best.safetensors")
    np.testing.assert_array_equal(arrays(shown)["fc7.weight"], values["fc7.weight"])
    assert "best.safetensors: fc7.weight holds NaN or infinity" in caplog.text
