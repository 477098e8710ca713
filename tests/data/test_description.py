"""A folder's description takes the place of keys that were left at their defaults."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnlab import compose
from fcnlab.config import to_yaml
from fcnlab.core.errors import DataError
from fcnlab.data.sample_lists import read_stems
from fcnlab.registry import DATASETS

TEXT = """
class_names: [sky, Erde, tree]
palette: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
ignore_index: 250
label_values: [0, 10, 20]
train_list: train.txt
val_list: val.txt
mean: [0.1, 0.2, 0.3]
std: [0.4, 0.5, 0.6]
source: somewhere
licence: mine
class_pixels: [1, 2, 3]
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "dataset.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path


def composed(root, *words):
    return compose(["dataset=folder", f"dataset.root={root}", *words]).dataset


def test_it_takes_the_place_of_the_defaults(root):
    found = composed(root)
    assert (found.num_classes, found.class_names, found.ignore_index) == (3, ["sky", "Erde", "tree"], 250)
    assert (found.label_values, found.mean, found.std) == ([0, 10, 20], [0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert found.palette == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert found.val_list == "{root}/val.txt"


def test_a_word_on_the_command_line_wins(root):
    found = composed(root, "dataset.mean=[0.9,0.9,0.9]", "dataset.class_names=[a,b,c]")
    assert (found.mean, found.class_names, found.num_classes) == ([0.9] * 3, ["a", "b", "c"], 3)


def test_a_default_on_the_command_line_wins_too(root):
    found = composed(root, "dataset.mean=[0.485,0.456,0.406]", "dataset.num_classes=2", "dataset.class_names=[]",
                     "dataset.palette=[]", "dataset.val_list=null")  # fmt: skip
    assert (found.mean, found.num_classes, found.class_names) == ([0.485, 0.456, 0.406], 2, [])
    assert (found.palette, found.val_list, found.std) == ([], None, [0.4, 0.5, 0.6])


def test_a_reproduction_takes_what_was_recorded_and_not_what_the_file_says_today(root, tmp_path):
    recorded = tmp_path / "run"
    recorded.mkdir()
    words = ("dataset.mean=[0.485,0.456,0.406]", "dataset.std=[0.7,0.7,0.7]")
    composed_then = compose(["dataset=folder", f"dataset.root={root}", *words])
    (recorded / "config.yaml").write_text(to_yaml(composed_then))
    assert compose([f"from_run={recorded}"]).dataset == composed_then.dataset
    other = compose([f"from_run={recorded}", "dataset=folder", f"dataset.root={root}"]).dataset
    assert other == composed(root)


def test_a_folder_that_moved_is_the_same_but_for_its_root(root, tmp_path_factory):
    recorded, moved = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("new") / "place"
    (recorded / "config.yaml").write_text(to_yaml(compose(["dataset=folder", f"dataset.root={root}"])))
    before = composed(root)
    root.rename(moved)
    again = compose([f"from_run={recorded}", f"dataset.root={moved}"]).dataset
    assert again == composed(moved) == replace(before, root=str(moved))


def test_a_list_that_is_given_is_looked_for_here_first_and_then_in_the_root(root, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    for place, name in ((root, "val.txt"), (root, "other.txt"), (Path(), "val.txt"), (root, "train.txt")):
        (place / name).write_text("here" if place == Path() else name)
    found = composed(root, "dataset.val_list=val.txt", "dataset.train_list=other.txt")
    stems = {"here", "other.txt", "val.txt", "train.txt"}
    assert read_stems(found.val_list, "dataset.val_list", root, stems) == {"here"}
    assert read_stems(found.train_list, "dataset.train_list", root, stems) == {"other.txt"}
    # A list of the same name in the working directory is not what the folder's description means.
    assert read_stems(composed(root).val_list, "dataset.val_list", root, stems) == {"val.txt"}


def test_other_data_sets_and_folders_without_one_stay(tmp_path):
    assert composed(tmp_path).num_classes == 2
    assert composed(tmp_path / "missing").num_classes == 2
    assert compose([]).dataset.name == "cells"


def test_the_lists_are_the_folders_own(root, tmp_path, monkeypatch):
    for name, value in (("a", 0), ("b", 10)):
        for folder in ("images", "labels"):
            (root / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(root / "images" / f"{name}.png"), np.full((8, 8, 3), 50, np.uint8))
        cv2.imwrite(str(root / "labels" / f"{name}.png"), np.full((8, 8), value, np.uint8))
    (root / "train.txt").write_text("a\n")
    (root / "val.txt").write_text("b\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (elsewhere / "val.txt").write_text("a\n")
    val = DATASETS.get("folder")(composed(root), "val")
    assert val.names == ["b"]
    assert (val[0].label == 1).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not readable YAML"),
        ("- a\n", "must hold keys with values"),
        ("classes: [a]\n", "classes: no such key; known are .*class_names"),
        ("class_names: 3\n", "class_names: 3 is not what this key takes"),
        ("class_names: [1, 2]\n", "is not what this key takes"),
        ("class_names: [a, b, a]\n", "class_names: 'a' is the name of classes 0 and 2"),
        ("class_names: [a, '']\n", "class_names: class 1 has no name"),
        ('class_names: [a, "\\ud800"]\n', "class_names: the name of class 1, .* is no text"),
        ("num_classes: true\n", "num_classes: True is not"),
        ("mean: [a, b]\n", "is not what this key takes"),
        ("val_list: ../other.txt\n", "leads out of the folder"),
        ("images: /etc\n", "leads out of the folder"),
        ("source: !!python/object/apply:os.system ['true']\n", "is not readable YAML"),
        ("&a [*a]", "must hold keys|is not readable"),
    ],
)
def test_what_it_must_not_say_is_one_line(tmp_path, text, said):
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        composed(tmp_path)
    assert "\n" not in str(caught.value)
