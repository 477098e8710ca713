from __future__ import annotations

import cv2
import numpy as np
import pytest

from fcnlab import compose
from fcnlab.config.schema import Isbi2012Config
from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data.isbi2012 import Isbi2012
from fcnlab.registry import DATASETS


def write(root, stems):
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
    for stem in stems:
        cv2.imwrite(str(root / "images" / f"{stem}.png"), np.full((8, 8), 7, np.uint8))
        label = np.zeros((8, 8), np.uint8)
        label[:, 4:] = 255
        cv2.imwrite(str(root / "labels" / f"{stem}.png"), label)


def test_the_conventional_split_and_classes(tmp_path):
    write(tmp_path, range(30))
    train, val = (Isbi2012(Isbi2012Config(root=str(tmp_path)), split) for split in ("train", "val"))
    assert train.names == [str(number) for number in range(24)]
    assert val.names == [str(number) for number in range(24, 30)]
    assert (val[0].label == [0, 0, 0, 0, 1, 1, 1, 1]).all()
    val.check()


def test_zero_padded_names(tmp_path):
    write(tmp_path, [f"{number:02d}" for number in range(30)])
    assert Isbi2012(Isbi2012Config(root=str(tmp_path)), "val").names[0] == "24"


def test_a_list_wins(tmp_path):
    write(tmp_path, range(30))
    (tmp_path / "val.txt").write_text("3\n0\n")
    config = Isbi2012Config(root=str(tmp_path), val_list="val.txt")
    assert Isbi2012(config, "val").names == ["0", "3"]
    assert len(Isbi2012(config, "train")) == 28


@pytest.mark.parametrize(("key", "value"), [("val_fraction", 0.3), ("split_seed", 5)])
def test_a_key_of_the_random_split_is_refused(key, value):
    words = ["dataset.root=somewhere", f"dataset.{key}={value}"]
    compose(["dataset=folder", *words])
    with pytest.raises(ConfigError, match=rf"^dataset\.{key}: no such key with the dataset that is chosen.*$"):
        compose(["dataset=isbi2012", *words])


def test_fingerprint_and_source(tmp_path):
    write(tmp_path, range(30))
    train, val = (Isbi2012(Isbi2012Config(root=str(tmp_path)), split) for split in ("train", "val"))
    before = train.fingerprint(), val.fingerprint()
    (tmp_path / "labels" / "24.png").write_bytes(b"changed")
    assert train.fingerprint() == before[0]
    assert val.fingerprint() != before[1]
    assert train.source == f"isbi2012 {tmp_path.resolve()}"


@pytest.mark.parametrize("stems", [range(29), range(1, 31), [*range(29), "x"], range(31)])
def test_other_slices_are_refused(tmp_path, stems):
    write(tmp_path, stems)
    with pytest.raises(DataError, match=r"dataset\.root.*named 0 to 29.*dataset=folder") as caught:
        Isbi2012(Isbi2012Config(root=str(tmp_path)), "train")
    assert "\n" not in str(caught.value)


@pytest.fixture
def volumes(tmp_path):
    """The challenge's files: 30 pages each, an image and its label of two halves."""
    images = [np.full((8, 10), number, np.uint8) for number in range(30)]
    label = np.zeros((8, 10), np.uint8)
    label[:, 5:] = 255
    cv2.imwritemulti(str(tmp_path / "train-volume.tif"), images)
    cv2.imwritemulti(str(tmp_path / "train-labels.tif"), [label] * 30)
    return tmp_path


def test_the_volumes_are_the_same_slices(volumes):
    config = compose(["dataset=isbi2012", f"dataset.root={volumes}"]).dataset
    make = DATASETS.get("isbi2012")
    train, val = (make(config, split) for split in ("train", "val"))
    assert train.names == [str(number) for number in range(24)]
    assert val.names == [str(number) for number in range(24, 30)]
    assert (val[2].image == 26).all()
    assert val[2].image.shape == (8, 10, 3)
    assert (val[2].label == [0] * 5 + [1] * 5).all()
    val.check()
    before = val.fingerprint()
    assert before != train.fingerprint()
    cv2.imwritemulti(str(volumes / "train-labels.tif"), [np.zeros((8, 10), np.uint8)] * 30)
    assert val.fingerprint() != before


def test_volumes_that_are_not_whole_are_one_line(volumes):
    make = DATASETS.get("isbi2012")
    with pytest.raises(DataError, match="are for folders of slices"):
        make(Isbi2012Config(root=str(volumes), val_list="val.txt"), "val")
    cv2.imwritemulti(str(volumes / "train-labels.tif"), [np.zeros((8, 10), np.uint8)] * 3)
    with pytest.raises(DataError, match="has 3 pages where the ISBI 2012 training set has 30"):
        make(Isbi2012Config(root=str(volumes)), "val")
