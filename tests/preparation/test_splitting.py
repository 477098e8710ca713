"""Splits hold whole groups, have about the size that is asked for, and depend on the seed alone."""

from types import SimpleNamespace

import numpy as np
import pytest
from prepare_words import prepare_config

from fcnlab.core.errors import ConfigError, DataError
from fcnlab.data.image_folder import draw_validation
from fcnlab.preparation import splitting


def config(*words):
    return prepare_config("source=s", "root=r", *words)


def images(names, stacks=None, splits=None):
    return [
        SimpleNamespace(name=name, split=split, stack=stack, folder=name.partition("-")[0])
        for name, stack, split in zip(names, stacks or [None] * len(names), splits or [None] * len(names), strict=True)
    ]


@pytest.mark.parametrize("count", [2, 3, 10, 57])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
def test_images_without_groups_are_split_as_a_folder_is(count, fraction):
    names = [f"n{number}" for number in range(count)]
    drawn = splitting.assign(config(f"val_fraction={fraction}", "split_seed=3"), images(names))
    assert set(drawn.splits["val"]) == draw_validation(names, fraction, 3)
    assert drawn.splits["train"] == [name for name in names if name not in drawn.splits["val"]]


@pytest.mark.parametrize("group_by", ["stack", "null", "folder", "'^[a-z]+'", "'^([a-z]+)-'"])
@pytest.mark.parametrize("seed", range(5))
def test_no_split_divides_a_group(group_by, seed):
    names = [f"{letter * 3}-{number}" for letter in "abcdefghij" for number in range(6)]
    given = images(names, [name[:3] for name in names])
    drawn = splitting.assign(config(f"group_by={group_by}", "test_fraction=0.2", f"split_seed={seed}"), given)
    assert {split: len(members) for split, members in drawn.splits.items()} == {"train": 36, "val": 12, "test": 12}
    assert sorted(name for members in drawn.splits.values() for name in members) == sorted(names)
    for letter in "abcdefghij":
        assert sum(any(name[0] == letter for name in members) for members in drawn.splits.values()) == 1


@pytest.mark.parametrize("mark", ["_tile_{0}_{1}", "_x{0}_y{1}", "-r{0}c{1}", "_row{0}_col{1}", "_patch{0}{1}"])
def test_tiles_of_one_image_stay_together(mark):
    names = [f"slide_{slide}{mark.format(row, column)}" for slide in range(4) for row in "01" for column in "01"]
    drawn = splitting.assign(config("val_fraction=0.25"), images(names))
    assert len({name[:7] for name in drawn.splits["val"]}) == 1
    assert len(drawn.splits["val"]) == 4
    assert "16 images are in 4 groups that no split divides" in drawn.notes[0]
    plain = [f"2024_01_{day:02d}" for day in range(9)]
    assert splitting.assign(config(), images(plain)).groups == plain


def test_a_single_stack_is_split_into_blocks():
    names = [f"s-{number:04d}" for number in range(10)]
    drawn = splitting.assign(config("val_fraction=0.2", "test_fraction=0.3"), images(names, ["s.tif"] * 10))
    assert drawn.splits == {"train": names[:5], "val": names[5:7], "test": names[7:]}
    assert "neighbours" in drawn.notes[0]
    assert "group_by" in drawn.notes[0]
    assert set(drawn.groups) == {"stack s.tif"}  # so that no comparison takes neighbouring pages for independent images


@pytest.mark.parametrize("count", [3, 4, 5, 9])
@pytest.mark.parametrize(("val", "test"), [(0.2, 0.5), (0.5, 0.2), (0.9, 0.05), (0.05, 0.9), (0.45, 0.5)])
def test_every_split_of_a_single_stack_has_an_image(count, val, test):
    names = [f"s-{number:04d}" for number in range(count)]
    drawn = splitting.assign(config(f"val_fraction={val}", f"test_fraction={test}"), images(names, ["s.tif"] * count))
    assert all(drawn.splits.values())
    assert [*drawn.splits["train"], *drawn.splits["val"], *drawn.splits["test"]] == names


@pytest.mark.parametrize(
    ("names", "stacks", "words"),
    [
        ([f"{stack}-{page:04d}" for stack in "ab" for page in range(5)], ["a.tif"] * 5 + ["b.tif"] * 5, []),
        ([f"slide_tile_0_{number}" for number in range(5)], None, []),
        ([f"s-{page:04d}" for page in range(6)], ["s.tif"] * 6, ["folds=3"]),  # its pages would be dealt one by one
    ],
)
def test_groups_that_are_too_few_are_not_divided(names, stacks, words):
    with pytest.raises(DataError, match=r"splits need a group each: set `group_by`"):
        splitting.assign(config("test_fraction=0.2", *words), images(names, stacks))
    drawn = splitting.assign(config("test_fraction=0.2", "group_by='.+'", *words), images(names, stacks))
    assert drawn.splits["train"]
    assert drawn.splits["test"]


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_whole_groups_with_like_shares_of_every_class(seed):
    random = np.random.default_rng(seed)
    names = [f"p{patient}-{number}" for patient in range(20) for number in range(3)]
    pixels = {name: np.array([1000, random.integers(0, 100), 50 * (random.random() < 0.2)]) for name in names}
    settings = config("group_by='p[0-9]+'", "folds=5", "fold=2", "test_fraction=0.2", f"split_seed={seed}")
    drawn = splitting.assign(settings, images(names))
    test = list(drawn.splits["test"])
    assert len(test) == 12
    folds = splitting.deal(settings, drawn, pixels)
    assert sorted([*test, *(name for fold in folds for name in fold)]) == sorted(names)
    assert drawn.splits["val"] == folds[2]
    assert drawn.splits["train"] == [name for name in names if name not in {*folds[2], *test}]
    patients = [{name.partition("-")[0] for name in fold} for fold in folds]
    assert sum(map(len, patients)) == 16
    shares = np.array([np.sum([pixels[name] for name in fold], axis=0) for fold in folds])
    spread = shares.std(axis=0) / shares.mean(axis=0)
    shuffled = random.permutation(16)
    by_chance = [np.sum([pixels[name] for name in names[3 * int(p) : 3 * int(p) + 3]], axis=0) for p in shuffled]
    chance = np.array([np.sum(part, axis=0) for part in np.array_split(np.array(by_chance), 5)])
    assert spread[1] < 0.2
    assert spread[1] <= (chance.std(axis=0) / chance.mean(axis=0))[1] + 0.05
    assert splitting.deal(settings, splitting.assign(settings, images(names)), pixels) == folds


def test_tiles_and_pages_of_a_source_that_is_split_already_are_groups_for_comparisons():
    given = images(
        ["a", "s_x0_y0", "s_x0_y9", "p-0", "p-1"], [None] * 3 + ["p.tif"] * 2, ["train", "train", "val", "val", "val"]
    )
    drawn = splitting.assign(config(), given)
    assert drawn.splits == {"train": ["a", "s_x0_y0"], "val": ["s_x0_y9", "p-0", "p-1"], "test": []}
    assert drawn.groups == ["a", "tiles of s", "tiles of s", "stack p.tif", "stack p.tif"]


@pytest.mark.parametrize(
    ("words", "names", "splits", "error", "said"),
    [
        (["group_by='['"], "ab", None, ConfigError, "nor a regular expression"),
        (["group_by='x'"], "ab", None, ConfigError, "is not found in the name 'a'"),
        (["group_by='.*?'"], "ab", None, DataError, "2 images in 1 groups"),
        (["val_fraction=0.6", "test_fraction=0.5"], "abcd", None, ConfigError, "leave some of the images for training"),
        (["folds=3", "fold=3"], "abcd", None, ConfigError, "there are the folds 0 to 2"),
        ([], "a", None, DataError, "has 1 images, and two splits need at least 2"),
        (["folds=2"], "ab", ["train", "val"], ConfigError, "folds: the source is split already"),
        ([], "ab", ["train", "test"], DataError, "has folders for train and test alone"),
    ],
)
def test_what_cannot_be_split_is_one_line(words, names, splits, error, said):
    with pytest.raises(error, match=said) as caught:
        splitting.assign(config(*words), images(list(names), splits=splits))
    assert "\n" not in str(caught.value)


def test_more_folds_than_groups():
    settings = config("folds=3")
    drawn = splitting.assign(settings, images(["a", "b"]))
    with pytest.raises(DataError, match="folds=3: there are 2 groups"):
        splitting.deal(settings, drawn, {"a": np.array([1, 1]), "b": np.array([1, 1])})
