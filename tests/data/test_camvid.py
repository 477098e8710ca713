"""CamVid in SegNet's layout, made small."""

import cv2
import numpy as np
import pytest

from fcnlab import compose
from fcnlab.config.schema import CamvidConfig
from fcnlab.core.errors import DataError
from fcnlab.data.camvid import Camvid

SPLITS = {"train": ["0001TP_006690", "0001TP_006720"], "val": ["0016E5_07959"], "test": ["Seq05VD_f00000"]}


@pytest.fixture
def root(tmp_path):
    for split, stems in SPLITS.items():
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        for number, stem in enumerate(stems):
            cv2.imwrite(str(tmp_path / split / f"{stem}.png"), np.full((12, 16, 3), 80, np.uint8))
            label = np.full((12, 16), number, np.uint8)
            label[0] = 11
            cv2.imwrite(str(tmp_path / f"{split}annot" / f"{stem}.png"), label)
    return tmp_path


def write_list(root, split, stems):
    """Write a list as it is distributed, with paths of the authors' machine."""
    lines = [f"/SegNet/CamVid/{split}/{stem}.png /SegNet/CamVid/{split}annot/{stem}.png\n" for stem in stems]
    (root / f"{split}.txt").write_text("".join(lines))


@pytest.mark.parametrize("with_lists", [True, False])
def test_the_splits_and_void(root, with_lists):
    if with_lists:
        for split, stems in SPLITS.items():
            write_list(root, split, stems)
    train = Camvid(CamvidConfig(root=str(root)), "train")
    assert train.names == SPLITS["train"]
    assert (train[1].label[0] == 11).all()
    assert (train[1].label[1:] == 1).all()
    train.check()
    assert Camvid(CamvidConfig(root=str(root)), "val").names == SPLITS["val"]
    assert Camvid(CamvidConfig(root=str(root), val_set="test"), "val").names == SPLITS["test"]


def test_a_list_chooses_and_orders(root):
    write_list(root, "train", SPLITS["train"][::-1])
    assert Camvid(CamvidConfig(root=str(root)), "train").names == SPLITS["train"][::-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/a/train/x.png\n", "line 1 does not hold the path of an image and that of a label"),
        ("/a/train/x.png /a/trainannot/x.png\n", "there is no image"),
        ("/a/../../passwd /a/b\n", "there is no image|is no path below"),
        ("train/.. a/b\n", "is no path below a folder"),
        ("", "is empty"),
    ],
)
def test_a_strange_list_is_one_line(root, text, said):
    (root / "train.txt").write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        Camvid(CamvidConfig(root=str(root)), "train")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(root):
    (root / "trainannot" / f"{SPLITS['train'][0]}.png").unlink()
    with pytest.raises(DataError, match="has no label"):
        Camvid(CamvidConfig(root=str(root)), "train")
    with pytest.raises(DataError, match=r"neither 'train\.txt' nor a folder 'train'"):
        Camvid(CamvidConfig(root=str(root / "val")), "train")


def test_the_configuration_has_its_classes_and_colours():
    dataset = compose(["dataset=camvid", "dataset.root=x"]).dataset
    assert len(dataset.class_names) == len(dataset.palette) == dataset.num_classes == dataset.ignore_index == 11


def test_the_test_split_is_there_unless_it_validates_or_lacks_its_labels(root):
    assert Camvid(CamvidConfig(root=str(root)), "test").names == SPLITS["test"]
    assert Camvid.has_test(CamvidConfig(root=str(root)))
    assert not Camvid.has_test(CamvidConfig(root=str(root), val_set="test"))
    (root / "testannot").rename(root / "elsewhere")
    assert not Camvid.has_test(CamvidConfig(root=str(root)))
