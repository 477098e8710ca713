"""A check opens every pair of a folder, also those that are kept for a test."""

import numpy as np
import pytest
import yaml
from PIL import Image

from fcnlab.config.schema import FolderConfig, PrepareConfig
from fcnlab.core.errors import DataError
from fcnlab.data import description
from fcnlab.preparation import checking
from fcnlab.prepare import check

SPLITS = {"train": "ab", "val": "cd", "test": "ef"}


@pytest.fixture
def root(tmp_path):
    random = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for split, names in SPLITS.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "labels" / f"{name}.png")
    described(tmp_path, "test.txt")
    return tmp_path


def described(root, test_list):
    (root / description.FILE).write_text(yaml.safe_dump({"test_list": test_list} if test_list else {"source": "x"}))


def findings(root, **more):
    lists = {"train_list": str(root / "train.txt"), "val_list": str(root / "val.txt")}
    config = FolderConfig(root=str(root), **{**lists, **more})
    found, seen = checking.Findings(), {}
    for split, dataset in checking.open_splits(config, found).items():
        assert [*checking.check_pairs(found, config, split, dataset, seen)] == [*SPLITS[split]]
    checking.add_absent_classes(found, ["background", "cell"])
    return found


def test_test_images_are_opened_and_their_faults_found(root):
    found = findings(root)
    assert (found.images, found.problems) == ({"train": 2, "val": 2, "test": 2}, [])
    (root / "labels" / "e.png").write_bytes(b"damaged")
    (root / "images" / "f.png").write_bytes((root / "images" / "a.png").read_bytes())
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "labels" / "f.png")
    damaged, twice, absent = findings(root).problems
    assert damaged[0] == "test: e"
    assert "is damaged or truncated" in damaged[1]
    assert twice == ("test: f", "the same image as train: a")
    assert absent == ("test", "no pixel of cell")


def test_a_fold_changes_nothing_for_the_test_images(root):
    for fold, names in enumerate(SPLITS.values()):
        (root / f"fold-{fold}.txt").write_text("\n".join(names))
    found = checking.Findings()
    opened = checking.open_splits(FolderConfig(root=str(root), folds=2, fold=1), found)
    assert {split: dataset.names for split, dataset in opened.items()} == {
        key: [*names] for key, names in SPLITS.items()
    }


@pytest.mark.parametrize(
    ("test_list", "said"),
    [
        ("missing.txt", "test_list: cannot read"),
        ("../test.txt", "is no file in the folder"),
        ([1], "is no file in the folder"),
    ],
)
def test_a_list_of_the_test_that_cannot_be_read_is_a_problem(root, test_list, said):
    described(root, test_list)
    [(split, problem)] = findings(root).problems
    assert split == "test"
    assert said in problem


def test_a_list_that_the_description_does_not_name_is_of_an_earlier_preparation(root):
    described(root, None)
    assert [*findings(root).images] == ["train", "val"]
    (root / description.FILE).unlink()
    assert description.test_list(root) is None
    (root / description.FILE).write_text("- 1")
    with pytest.raises(DataError, match="must hold keys with values"):
        description.test_list(root)


def test_near_duplicates_are_wrong_only_where_that_is_asked_for(root, capsys):
    image = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    for name, change in (("a", 0), ("c", 3)):
        Image.fromarray(np.clip(image.astype(int) + change, 0, 255).astype(np.uint8)).save(
            root / "images" / f"{name}.png"
        )
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(root / "labels" / f"{name}.png")
    lists = {"train_list": str(root / "train.txt"), "val_list": str(root / "val.txt")}
    config = PrepareConfig(dataset=FolderConfig(root=str(root), class_names=["x", "y"], **lists), root=str(root))
    line = "1 pairs of images in different splits are nearly the same, such as train: a and val: c"
    assert check(config).problems == []
    assert line in capsys.readouterr().out
    config.near_duplicates = "refuse"
    [(place, problem)] = check(config).problems
    assert (place, problem.partition(":")[0]) == ("near-duplicates", line.partition(":")[0])
    assert capsys.readouterr().out.count(line) == 1
