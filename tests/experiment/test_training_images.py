"""``dataset.train_share`` chooses the images that a training sees, and says so."""

import logging

import cv2
import numpy as np
import pytest

from fcnlab.config import compose
from fcnlab.core.errors import ConfigError
from fcnlab.data import image_groups
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


def test_a_share_of_a_fold_is_made_of_whole_groups(tmp_path):
    """Twelve images of six patients are dealt to three folds; half of what does not validate are two patients."""
    names = [f"{patient}-{number}" for patient in "abcdef" for number in (0, 1)]
    for kind, brightest in (("images", 256), ("labels", 2)):
        (tmp_path / kind).mkdir()
        for name in names:
            pixels = np.random.default_rng(0).integers(0, brightest, (32, 32), np.uint8)
            cv2.imwrite(str(tmp_path / kind / f"{name}.png"), pixels)
    for fold in range(3):
        (tmp_path / f"fold-{fold}.txt").write_text("\n".join(names[4 * fold : 4 * fold + 4]))
    (tmp_path / "dataset.yaml").write_text("class_names: [a, b]\nfolds: 3\n")
    image_groups.write(tmp_path, {name: name[0] for name in names})
    words = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.crop_size=32", "dataset.fold=1"]
    part = assembly.build_data(compose([*words, "dataset.train_share=0.5"]))
    assert set(part.val.names) == set(names[4:8])
    assert len(part.train) == 4
    assert len(set(part.train.groups)) == 2
    assert set(part.train.names) < set(names) - set(part.val.names)
