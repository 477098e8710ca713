"""The layouts in which data sets are kept are recognised, and taken only where there is a single way to read them."""

import os

import numpy as np
import pytest
from PIL import Image

from fcnlab.core.errors import DataError
from fcnlab.preparation import layouts


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)


def found(root, classes=(), images=None, labels=None):
    """Return what each image was paired with, by the image's path, and its split."""
    result = {}
    for folders in layouts.find_folders(root, images, labels):
        for pair in layouts.pair_files(folders, root.resolve(), classes)[0]:
            below = [
                path.relative_to(root).as_posix() for path in ([pair.label] if pair.label else pair.masks.values())
            ]
            result[pair.image.relative_to(root).as_posix()] = (below[0] if pair.label else sorted(below), pair.split)
    return result


@pytest.mark.parametrize(
    ("pairs", "splits"),
    [
        ({"images/a.png": "labels/a.png"}, {None}),
        ({"download/images/a.jpg": "download/labels/a.png"}, {None}),
        ({"imgs/a.jpg": "masks/a.png"}, {None}),
        ({"JPEGImages/a.jpg": "SegmentationClass/a.png"}, {None}),
        ({"images/a.jpg": "labels/a_Segmentation.png", "images/b.jpg": "labels/b_Segmentation.png"}, {None}),
        ({"train/images/a.png": "train/labels/a.png", "val/images/b.png": "val/labels/b.png"}, {"train", "val"}),
        ({"train/images/a.png": "train/masks/a.png", "valid/images/a.png": "valid/masks/a.png",
          "test/images/c.png": "test/masks/c.png"}, {"train", "val", "test"}),
        ({"download/train/images/a.png": "download/train/labels/a.png",
          "download/val/images/b.png": "download/val/labels/b.png"}, {"train", "val"}),
        ({"images/train/a.png": "labels/train/a.png", "images/val/b.png": "labels/val/b.png"}, {"train", "val"}),
        ({"train/a.jpg": "train_masks/a_mask.gif", "train/b.jpg": "train_masks/b_mask.gif"}, {"train"}),
        ({"train/a.png": "train_mask/a.png", "val/b.png": "val_mask/b.png"}, {"train", "val"}),
        ({"train/a.png": "trainannot/a.png", "val/b.png": "valannot/b.png"}, {"train", "val"}),
        ({"a.jpg": "a_mask.png", "b.jpg": "b_mask.png"}, {None}),
        ({"all/a.jpg": "all/a_seg.png", "all/b.jpg": "all/b_seg.png"}, {None}),
    ],
)  # fmt: skip
def test_known_layouts(tmp_path, pairs, splits):
    touch(tmp_path, *pairs, *pairs.values())
    (tmp_path / "readme.txt").write_text("")
    result = found(tmp_path)
    assert {image: label for image, (label, _) in result.items()} == pairs
    assert {split for _, split in result.values()} == splits


def test_one_folder_of_masks_for_each_class(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "masks/cell/a.png", "masks/cell/b.png", "masks/nucleus/a.png")
    assert found(tmp_path, ["background", "cell", "nucleus"]) == {
        "images/a.png": (["masks/cell/a.png", "masks/nucleus/a.png"], None),
        "images/b.png": (["masks/cell/b.png"], None),
    }


def test_one_mask_for_each_class(tmp_path):
    touch(tmp_path, "images/a.png", "labels/a_cell.png", "labels/a_dark cell.png")
    assert found(tmp_path, ["background", "cell", "dark cell"]) == {
        "images/a.png": (["labels/a_cell.png", "labels/a_dark cell.png"], None)
    }


@pytest.mark.parametrize("order", [1, -1])
def test_two_ways_to_read_a_source_are_refused_whatever_the_disks_order(tmp_path, monkeypatch, order):
    touch(tmp_path, "new/images/a.png", "new/labels/a.png", "old/images/a.png", "old/labels/a.png")
    monkeypatch.setattr(
        "pathlib.Path.iterdir", lambda path: [path / name for name in sorted(os.listdir(path))[::order]]
    )
    with pytest.raises(DataError, match=r"2 ways \(new/images with new/labels; old/images with old/labels\): name the"):
        found(tmp_path)
    assert found(tmp_path, images="old/images", labels="old/labels") == {"old/images/a.png": ("old/labels/a.png", None)}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["pictures/a.png"], "there is no folder 'images' beside a folder 'labels'"),
        (["images/a.png", "images/b.png", "labels/a.png"], "1 images and labels have no partner, such as 'b', a image"),
        (["images/a.png", "labels/b.png"], "2 images and labels have no partner"),
        (["a.png", "a_mask.png", "b.png", "b_seg.png"], "holds images and labels whose names end in _mask, _seg"),
        (["images/a.png", "images/a.jpg", "labels/a.png"], "share the stem 'a'"),
        (["a.png", "a_mask.png", "a_Mask.png"], "a_Mask.png' and .*a_mask.png' are both called like the label of"),
        (["images/a.png", "labels/a_mask.png", "labels/a_Mask.png"], "are both called like the label of one image"),
        (["images/a.png", "labels/cell/a_mask.png", "labels/cell/a_Mask.png"], "are both called like the label of one"),
        (["images/a.png", "labels/a_cell.png", "labels/a-cell.png"], "are both the mask of image 'a' for the class"),
        (["images/a.png", "images/a_dark.png", "labels/a_dark_cell.png"],
         "a_dark_cell.png' can be that of 'a' for the class 'dark_cell' and that of 'a_dark' for 'cell'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path, files, said):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=said) as caught:
        found(tmp_path, ["background", "cell", "dark_cell"])
    assert "\n" not in str(caught.value)


def test_images_that_are_not_read_are_named(tmp_path):
    touch(tmp_path, *(f"{split}/{kind}/{split}.png" for split in ("train", "val") for kind in ("images", "labels")))
    pairs = [
        pair
        for folders in layouts.find_folders(tmp_path, None, None)
        for pair in layouts.pair_files(folders, tmp_path.resolve(), ())[0]
    ]
    assert layouts.left_out(tmp_path, pairs) is None
    touch(tmp_path, "test/images/a.png", "test/images/b.png", "more/c.jpg")
    said = layouts.left_out(tmp_path, pairs)
    assert said == "3 images lie in folders that are not read, and are left out: more (1), test/images (2)"


def test_a_link_out_of_the_source_is_not_followed(tmp_path):
    touch(tmp_path, "elsewhere/secret.png", "source/images/a.png", "source/labels/a.png", "source/labels/b.png")
    (tmp_path / "source" / "images" / "b.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    with pytest.raises(DataError, match="is a link to"):
        found(tmp_path / "source")


def test_one_of_two_folders_of_images_is_not_chosen_silently(tmp_path):
    touch(tmp_path, "one/images/a.png")
    assert layouts.find_image_folder(tmp_path, None) == tmp_path / "one" / "images"
    touch(tmp_path, "two/images/a.png")
    with pytest.raises(DataError, match=r"has 2 folders of images \(one/images, two/images\): set `images`"):
        layouts.find_image_folder(tmp_path, None)
    assert layouts.find_image_folder(tmp_path, "two/images") == tmp_path / "two" / "images"
    touch(tmp_path, "images/a.png")
    assert layouts.find_image_folder(tmp_path, None) == tmp_path / "images"


def test_one_split_of_several_can_be_the_source(tmp_path):
    touch(tmp_path, *(f"{split}/{kind}/{split}.png" for split in ("train", "val") for kind in ("images", "labels")))
    assert found(tmp_path / "train") == {"images/train.png": ("labels/train.png", None)}
    assert {split for _, split in found(tmp_path).values()} == {"train", "val"}


def test_hidden_files_and_folders_count_for_nothing(tmp_path):
    touch(tmp_path, "one/images/a.png", "one/labels/a.png", ".trash/images/a.png", ".trash/labels/a.png")
    touch(tmp_path, "._b.png", "._b_mask.png", "one/images/._a.png", "one/labels/._a.png")
    for name in ("._a.json", "one/images/._a.json", ".git/settings.json", "one/.cache/x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert found(tmp_path) == {"one/images/a.png": ("one/labels/a.png", None)}
    assert layouts.find_image_folder(tmp_path, None) == tmp_path / "one" / "images"
    assert not layouts.has_json(tmp_path)
    (tmp_path / "one" / "images" / "a.JSON").write_text("{}")
    assert layouts.has_json(tmp_path)


def test_hidden_pairs_in_one_folder_are_no_layout(tmp_path):
    touch(tmp_path, "._a.png", "._a_mask.png", "b/a.png", "b/a_mask.png")
    assert found(tmp_path) == {"b/a.png": ("b/a_mask.png", None)}
