"""``groups.csv`` says which images belong together; a damaged one is refused before anything is trained."""

import cv2
import numpy as np
import pytest

from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import DataError
from fcnlab.data import EvalLoader, image_groups
from fcnlab.data.image_folder import Folder

GROUPS = {"a": "one, with a comma", "b": 'one "quoted"', "é": "one, with a comma", "c": " c "}


def test_what_is_written_is_read(tmp_path):
    assert image_groups.read(tmp_path) == {}
    image_groups.write(tmp_path, GROUPS)
    assert image_groups.read(tmp_path) == GROUPS
    image_groups.write(tmp_path, {name: name for name in GROUPS})  # of an image each, which needs no file
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"a,one\n", b"image,group\na\n", b"image,group\n\xff,one\n"])
def test_a_damaged_file_is_refused_when_the_images_are_to_be_evaluated(tmp_path, content):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), np.zeros((4, 4), np.uint8))
    dataset = Folder(FolderConfig(root=str(tmp_path), num_classes=2, val_fraction=0.5), "val")
    [name] = dataset.names
    kind = {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert EvalLoader(dataset, **kind).groups == [name]
    image_groups.write(tmp_path, dict.fromkeys("ab", "stack"))
    loader = EvalLoader(dataset, **kind)
    (tmp_path / image_groups.FILE).write_bytes(content)
    assert loader.groups == ["stack"]  # as at the start of the training
    with pytest.raises(DataError, match=r"groups\.csv.*prepare the folder again"):
        EvalLoader(dataset, **kind)
