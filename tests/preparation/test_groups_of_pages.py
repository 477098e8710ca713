"""The pages of a stack are one group of a prepared folder, which is named alike wherever the source lies."""

import shutil

import numpy as np
import pytest
import tifffile

from fcnlab import prepare
from fcnlab.config import compose
from fcnlab.data import image_groups


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages") / "source"
    random = np.random.default_rng(0)
    for kind, brightest in (("images", 256), ("labels", 2)):
        for day in ("monday", "tuesday"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            pages = random.integers(0, brightest, (3, 40, 40), np.uint8)
            tifffile.imwrite(root / kind / f"{day}.tif", pages, imagej=True, metadata={"axes": "ZYX"})
    return root


def groups_of(source, root, *words):
    given = [f"source={source}", f"root={root}", "classes=[a,b]", *words]
    return image_groups.read(prepare.prepare(compose(given, "prepare")))


def test_a_group_is_the_place_of_its_file_in_the_source(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(source, tmp_path / "elsewhere")
    shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    places = (source, "elsewhere", tmp_path / "packed.zip")
    found = [groups_of(place, tmp_path / str(number), "val_fraction=0.5") for number, place in enumerate(places)]
    assert found[0] == found[1] == found[2]
    assert {*found[0].values()} == {f"stack images/{day}.tif" for day in ("monday", "tuesday")}


def test_the_pages_of_a_single_stack_are_one_group(source, tmp_path):
    single = shutil.copytree(source, tmp_path / "single", ignore=shutil.ignore_patterns("tuesday*"))
    assert {*groups_of(single, tmp_path / "one").values()} == {"stack images/monday.tif"}
    named = groups_of(single, tmp_path / "named", "group_by='[0-9]+$'")
    assert named == {}  # each page is said to be independent
