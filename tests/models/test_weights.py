"""Weights from another network are taken over where they fit, and refused in one line where they do not."""

import numpy as np
import pytest

from fcnlab.core.errors import CheckpointError
from fcnlab.models import build_model
from fcnlab.models.weights import initialise_from, load_weights


def network(name="fcn32s", num_classes=2, seed=0, width=1 / 64, **options):
    return build_model(name, num_classes=num_classes, width=width, seed=seed, **options)


def arrays(net):
    return {name: parameter.asnumpy() for name, parameter in net.parameters_dict().items()}


def refusal(function, *arguments):
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_width_or_class_count_is_refused():
    assert "arch.width" in refusal(load_weights, network(), arrays(network(width=1 / 32)), "w")
    assert "score.weight" in refusal(load_weights, network(), arrays(network(num_classes=5)), "w")
    assert "score_pool4" in refusal(load_weights, network("fcn16s"), arrays(network()), "w")


def test_stages_as_in_the_paper():
    """FCN-16s starts from FCN-32s: shared layers are taken over, and its own skip keeps its initial values."""
    coarse, fine = network(seed=1), network("fcn16s", seed=2)
    untouched = arrays(network("fcn16s", seed=2))
    left = initialise_from(fine, arrays(coarse), "fcn32s")
    assert {"score_pool4.weight", "score_pool4.bias"} <= set(left)
    assert all(name.startswith(("score", "upsample")) for name in left)
    for name, array in arrays(fine).items():
        expected = untouched[name] if name in left else arrays(coarse)[name]
        np.testing.assert_array_equal(array, expected)


def test_other_classes_keep_their_own_head():
    left = initialise_from(network(num_classes=5), arrays(network()), "two classes")
    assert {"score.weight", "score.bias"} <= set(left)
    assert not any(name.startswith(("encoder", "fc")) for name in left)


def test_other_channels_begin_with_a_first_convolution_of_their_own():
    five, three = network(in_channels=5), network()
    left = initialise_from(five, arrays(three), "three channels")
    assert left == ["encoder.block1.conv1.weight"]
    np.testing.assert_array_equal(arrays(five)["fc6.weight"], arrays(three)["fc6.weight"])


def test_a_start_from_a_foreign_network_is_refused():
    assert "arch.width" in refusal(initialise_from, network(), arrays(network(width=1 / 32)), "wide")
    assert "another network" in refusal(initialise_from, network(), {"resnet.weight": np.zeros(3)}, "resnet")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_training_starts_from_what_is_no_number_but_it_can_be_looked_at(caplog, bad):
    values = {name: array.copy() for name, array in arrays(network()).items()}
    values["fc7.weight"].flat[5] = bad
    text = refusal(initialise_from, network(), values, "init_from=best.safetensors")
    assert text.startswith("init_from=best.safetensors: fc7.weight holds NaN or infinity")
    shown = network()
    load_weights(shown, values, "best.safetensors")
    np.testing.assert_array_equal(arrays(shown)["fc7.weight"], values["fc7.weight"])
    assert "best.safetensors: fc7.weight holds NaN or infinity" in caplog.text
    values["score.weight"] = np.full((5, 64, 1, 1), bad, np.float32)  # not taken over, since the classes differ
    values["fc7.weight"] = arrays(network())["fc7.weight"]
    assert "score.weight" in initialise_from(network(), values, "other classes")
