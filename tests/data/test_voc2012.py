"""PASCAL VOC in the layout and the formats in which it is distributed, made small."""

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fcnlab.config.schema import Voc2012Config
from fcnlab.core.errors import DataError
from fcnlab.data.voc2012 import Voc2012, read_mat
from fcnlab.drawing.palette import voc_palette

TRAIN, VAL, ONLY_SBD = ["2007_000032", "2007_000039"], ["2007_000033", "2007_000042"], ["2008_000008", "2008_000019"]


def label_of(name):
    """Return a label of one class, which the name decides, with a border of void."""
    label = np.full((20, 30), 255, np.uint8)
    label[2:-2, 2:-2] = int(name[-2:]) % 21
    return label


@pytest.fixture
def devkit(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in TRAIN + VAL:
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), np.full((20, 30, 3), 99, np.uint8))
        image = Image.fromarray(label_of(name), mode="P")
        image.putpalette(voc_palette(256).ravel().tolist())  # colours, whose indices are the classes
        image.save(root / "SegmentationClass" / f"{name}.png")
    for list_name, names in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)):
        (root / "ImageSets/Segmentation" / f"{list_name}.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture
def sbd(tmp_path):
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    for folder in ("img", "cls"):
        (root / folder).mkdir(parents=True)
    for name in [*ONLY_SBD, VAL[0], TRAIN[0]]:
        cv2.imwrite(str(root / "img" / f"{name}.jpg"), np.full((20, 30, 3), 99, np.uint8))
        savemat(root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": label_of(name), "Boundaries": np.zeros(3)}})
    (root / "train.txt").write_text("\n".join([ONLY_SBD[0], VAL[0]]))
    (root / "val.txt").write_text("\n".join([ONLY_SBD[1], TRAIN[0]]))
    return root


def names(split, **keys):
    return Voc2012(Voc2012Config(**{key: str(value) for key, value in keys.items()}), split).names


@pytest.mark.parametrize("above", [0, 1, 2])
def test_the_lists_and_the_indices_of_the_palette(devkit, above):
    root = [devkit, *devkit.parents][above]
    config = Voc2012Config(root=str(root))
    for split, expected in (("train", TRAIN), ("val", VAL)):
        found = Voc2012(config, split)
        assert found.names == expected
        for index, name in enumerate(expected):
            np.testing.assert_array_equal(found[index].label, label_of(name))
            assert found[index].image.shape == (20, 30, 3)
        found.check()


def test_trainaug_is_both_data_sets_without_the_validation_images(devkit, sbd):
    expected = sorted({*TRAIN, *ONLY_SBD})
    assert names("train", root=devkit, train_set="trainaug", sbd_root=sbd) == expected
    assert names("train", root=devkit, train_set="trainaug", sbd_root=sbd.parents[1]) == expected
    found = Voc2012(Voc2012Config(root=str(devkit), train_set="trainaug", sbd_root=str(sbd)), "train")
    for index, name in enumerate(expected):
        np.testing.assert_array_equal(found[index].label, label_of(name))  # from .png and .mat alike
    assert found.fingerprint() == found.fingerprint()


def test_seg11valid_is_what_sbd_does_not_train_on(devkit, sbd):
    assert names("val", root=devkit, val_set="seg11valid", sbd_root=sbd) == [VAL[1]]
    (devkit / "ImageSets/Segmentation/seg11valid.txt").write_text(VAL[0])
    assert names("val", root=devkit, val_set="seg11valid") == [VAL[0]]  # the authors' own list wins


def test_converted_labels_and_their_list_will_do(devkit):
    folder = devkit / "SegmentationClassAug"
    folder.mkdir()
    cv2.imwrite(str(devkit / "JPEGImages" / f"{ONLY_SBD[0]}.jpg"), np.full((20, 30, 3), 99, np.uint8))
    cv2.imwrite(str(folder / f"{ONLY_SBD[0]}.png"), label_of(ONLY_SBD[0]))
    (devkit / "ImageSets/Segmentation/trainaug.txt").write_text(f"{ONLY_SBD[0]}\n{TRAIN[0]}\n")
    assert names("train", root=devkit, train_set="trainaug") == [ONLY_SBD[0], TRAIN[0]]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"train_set": "trainval"}, r"train_set=trainval and dataset\.val_set=val share 2 images, such as 2007_000033"),
        ({"train_set": "trainaug"}, r"set dataset\.sbd_root to the folder"),
        ({"val_set": "seg11valid"}, r"set dataset\.sbd_root to its folder"),
        ({"sbd_root": "nowhere"}, "holds no folder cls"),
    ],
)
def test_what_cannot_be_is_one_line(devkit, keys, said):
    with pytest.raises(DataError, match=said) as caught:
        names("train", root=devkit, **keys)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(devkit, tmp_path):
    (devkit / "SegmentationClass" / f"{VAL[1]}.png").unlink()
    with pytest.raises(DataError, match=rf"there is no label .*{VAL[1]}\.png"):
        names("val", root=devkit)
    with pytest.raises(DataError, match=r"holds no ImageSets.* PASCAL VOC"):
        names("val", root=tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages")
    (devkit / "ImageSets/Segmentation/val.txt").write_text("../../etc/passwd\n")
    with pytest.raises(DataError, match="is a path; a list holds names"):
        names("val", root=devkit)


def test_a_strange_mat_is_one_line(tmp_path):
    savemat(tmp_path / "other.mat", {"GTcls": {"Boundaries": np.zeros(3)}})
    savemat(tmp_path / "floats.mat", {"GTcls": {"Segmentation": np.zeros((3, 3))}})
    (tmp_path / "text.mat").write_text("not a mat")
    (tmp_path / "empty.mat").write_bytes(b"")
    for name in ("other", "floats", "text", "empty", "missing"):
        with pytest.raises(DataError, match=rf"{name}\.mat' is not a \.mat of SBD"):
            read_mat(tmp_path / f"{name}.mat")
