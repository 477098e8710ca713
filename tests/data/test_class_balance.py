"""Class weights and repeat factors, worked by hand."""

import numpy as np
import pytest

from fcnlab import compose
from fcnlab.config.schema import CellsConfig
from fcnlab.core.errors import ConfigError
from fcnlab.data.cells import Cells
from fcnlab.data.class_balance import median_frequency, repeat_factors
from fcnlab.experiment import assembly

PIXELS = np.array([[80, 20, 0, 0], [100, 0, 0, 0], [50, 25, 25, 0]])


def test_median_frequency_by_hand():
    # Class 0: 230 of 300; class 1: 45 of the 200 in its two images; class 2: 25 of 100. The median is 0.25.
    weights = median_frequency(PIXELS)
    assert weights == pytest.approx([0.25 / (230 / 300), 0.25 / 0.225, 1.0, 0.0])
    assert median_frequency(np.zeros((2, 3))) == [0, 0, 0]


def test_repeat_factors_by_hand():
    # Shares of images: 1, 2/3, 1/3. With a threshold of 3/4: 1, sqrt(9/8), sqrt(9/4).
    assert repeat_factors(PIXELS, 0.75) == pytest.approx([np.sqrt(9 / 8), 1.0, 1.5])
    assert repeat_factors(PIXELS, 0.0).tolist() == [1, 1, 1]


def test_a_data_set_counts_its_pixels():
    cells = Cells(CellsConfig(num_train=3, image_size=64), "train")
    counts = cells.class_pixels(2)
    assert counts.sum(axis=1).tolist() == [64 * 64] * 3
    assert counts[1].tolist() == [(cells[1].label == index).sum() for index in (0, 1)]


def test_median_frequency_becomes_numbers_before_anything_is_recorded():
    words = ["dataset.num_train=3", "dataset.num_val=1", "dataset.image_size=64"]
    config = compose([*words, "loss=combined", "loss.class_weights=median_frequency"])
    data = assembly.build_data(config)
    settled = assembly.settle_class_weights(config, data)
    assert settled.loss.class_weights == pytest.approx(median_frequency(data.train.class_pixels(2)))
    assert settled.loss.class_weights[0] > settled.loss.class_weights[1] > 0  # membranes are the rarer ones
    assert assembly.settle_class_weights(settled, data) is settled


@pytest.mark.parametrize("weights", ["median", "[1.0]", "[a,b]", "[1.0,-1.0]", "3"])
def test_other_class_weights_are_refused_in_one_line(weights):
    with pytest.raises(ConfigError, match=r"loss\.class_weights") as caught:
        compose([f"loss.class_weights={weights}"])
    assert "\n" not in str(caught.value)
