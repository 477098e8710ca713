"""A folder that trains only after ``fcnlab.prepare`` is refused with the command that prepares it."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnlab.config import compose
from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import DataError
from fcnlab.data.image_folder import Folder, prepare_command
from fcnlab.prepare import prepare

LAYOUTS = {
    "train/images": ("{split}/images/{name}.png", "{split}/masks/{name}.png"),
    "images/train": ("images/{split}/{name}.png", "labels/{split}/{name}.png"),
    "suffix": ("images/{split}{name}.png", "labels/{split}{name}_mask.png"),
    "one folder": ("data/{split}{name}.png", "data/{split}{name}_seg.png"),
    "class folders": ("images/{split}{name}.png", "labels/cell body/{split}{name}.png"),
    "Carvana": ("{split}/{name}.png", "{split}_masks/{name}.png"),
}
NAMES = ["background", "cell body"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_command_of_the_refusal_makes_a_folder_that_is_read(tmp_path, layout):
    root = tmp_path / "it's mine"
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "ab":
            image, label = (root / path.format(split=split, name=name) for path in LAYOUTS[layout])
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(image)
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(label)
    with pytest.raises(DataError) as caught:
        Folder(FolderConfig(root=str(root), class_names=NAMES), "train")
    text = str(caught.value)
    assert "\n" not in text
    command = shlex.split(text.partition("this makes one that trains: ")[2])
    assert command[:3] == ["python", "-m", "fcnlab.prepare"]
    prepared = prepare(compose(command[3:], "prepare"))
    assert prepared == tmp_path / "it's mine-prepared"
    lists = {"train_list": "train.txt", "val_list": "val.txt"}
    splits = [Folder(FolderConfig(root=str(prepared), class_names=NAMES, **lists), split) for split in ("train", "val")]
    assert sum(map(len, splits)) == 4
    np.testing.assert_array_equal(splits[0][0].label, np.eye(8))


def test_one_missing_label_is_no_question_of_the_layout(tmp_path):
    for name, folders in {"a": ("images", "labels"), "b": ("images",)}.items():
        for folder in folders:
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / folder / f"{name}.png")
    with pytest.raises(DataError, match=r"image '.*b.png' has no label .*: add it or remove the image$"):
        Folder(FolderConfig(root=str(tmp_path)), "train")


@pytest.mark.parametrize(
    ("root", "prepared"),
    [(".", "{here}-prepared"), ("..", "{above}-prepared"), ("in/..", "{here}-prepared"), ("/", "/data-prepared")],
)
def test_a_folder_that_is_named_by_where_it_is_gets_a_neighbour(tmp_path, monkeypatch, root, prepared):
    here = tmp_path / "here"
    (here / "in").mkdir(parents=True)
    monkeypatch.chdir(here)
    words = shlex.split(prepare_command(Path(root), ["null", "a"]))
    assert words[-2] == f"root={prepared.format(here=here, above=tmp_path)}"
    assert compose(words[3:], "prepare").classes == ["null", "a"]
