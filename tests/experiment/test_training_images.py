"""``dataset.train_share`` chooses the images that a training sees, and says so."""

import logging

import pytest

from fcnlab.config import compose
from fcnlab.core.errors import ConfigError
from fcnlab.experiment import assembly, evaluation_data

WORDS = ["dataset=cells", "dataset.num_train=10", "dataset.num_val=2", "dataset.image_size=64"]


def test_a_training_takes_its_share_and_the_validation_stays(caplog):
    whole = assembly.build_data(compose(WORDS))
    with caplog.at_level(logging.INFO):
        part = assembly.build_data(compose([*WORDS, "dataset.train_share=0.3", "seed=4"]))
    assert "dataset.train_share=0.3: trains on 3 of the 10 images, drawn by seed=4" in caplog.text
    assert set(part.train.names) < set(whole.train.names)
    assert part.val.fingerprint() == whole.val.fingerprint()
    recorded = assembly.describe_inputs(compose(WORDS), part)
    assert [item.images for item in recorded] == [3, 2]
    assert recorded[0].digest != assembly.describe_inputs(compose(WORDS), whole)[0].digest


@pytest.mark.parametrize("share", ["0", "1.1", "-0.5"])
def test_a_share_beyond_its_range_is_refused(share):
    with pytest.raises(ConfigError, match=r"dataset\.train_share"):
        compose([*WORDS, f"dataset.train_share={share}"])


def test_an_evaluation_has_no_share():
    config = compose([*WORDS, "dataset.train_share=0.5", "checkpoint=any"], "evaluate")
    with pytest.raises(ConfigError, match=r"dataset\.train_share=0\.5: belongs to a training"):
        evaluation_data.open_split(config.dataset, "train")
