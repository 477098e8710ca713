"""A folder of predictions knows what each of them was made from, whatever was interrupted."""

import csv
import re
from types import SimpleNamespace

import numpy as np
import pytest

from fcnlab.core.errors import ConfigError
from fcnlab.inference.prediction import (
    SETTINGS_FILE,
    SOURCES_FILE,
    OutputFolder,
    PredictionOptions,
    PredictionOutcome,
    label_all,
)


@pytest.fixture
def folder(tmp_path):
    """A folder with predictions of A/a.png and A/b.png, made with checkpoint c1."""
    made = OutputFolder(tmp_path / "out", PredictionOptions(overlays=False))
    made.claim("c1", pictures(tmp_path / "A", "a", "b"), overwrite=False)
    finish(made, "a", "b")
    return made


def pictures(folder, *names):
    return [SimpleNamespace(name=name, path=folder / f"{name}.png") for name in names]


def finish(folder, *names):
    """Leave what `OutputFolder.write` leaves of images."""
    for name in names:
        path = folder.files(name)["mask"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def refusal(folder, *arguments):
    with pytest.raises(ConfigError) as caught:
        folder.claim(*arguments, overwrite=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_call_again_has_what_is_there(folder, tmp_path):
    folder.claim("c1", pictures(tmp_path / "A", "a", "b"), overwrite=False)
    assert folder.has("a")
    assert folder.has("b")


def test_after_an_interrupted_overwrite_no_old_mask_passes_for_a_new_one(folder, tmp_path):
    other = pictures(tmp_path / "B", "a")
    folder.claim("c1", other, overwrite=True)  # and then the process is killed
    folder.claim("c1", other, overwrite=False)
    assert not folder.has("a")
    assert folder.has("b")


def test_masks_of_another_checkpoint_that_were_not_made_again_are_not_mixed_in(folder, tmp_path):
    both = pictures(tmp_path / "A", "a", "b")
    folder.claim("c2", both[:1], overwrite=True)
    finish(folder, "a")
    folder.claim("c2", both[:1], overwrite=False)
    assert folder.has("a")
    assert re.search(r"'b' is there already, made with another checkpoint and not", refusal(folder, "c2", both))
    folder.claim("c2", both, overwrite=True)
    assert not folder.has("b")


def test_the_doubt_of_another_checkpoint_is_not_mixed_in(folder, tmp_path):
    review, images = folder.folder / "review.csv", pictures(tmp_path / "A", "a")
    review.write_text("image,doubt\na,0.5\n")
    folder.claim("c1", images, overwrite=True)
    assert review.exists()
    folder.claim("c2", images, overwrite=True)
    assert not review.exists()


class Unsure:
    """Labels each image with the confidence that its first pixel says, in percent."""

    palette, class_names = np.zeros((2, 3), np.uint8), ["a", "b"]

    def predict_with_confidence(self, image, **views):
        return np.zeros(image.shape[:2], np.uint8), np.full(image.shape[:2], image[0, 0, 0] / 100, np.float32)


def test_the_most_doubtful_images_are_reviewed_first(tmp_path):
    def call(**sure):
        options, outcome = PredictionOptions(overlays=False, review=True), PredictionOutcome()
        output = OutputFolder(tmp_path / "out", options)
        images = {name: np.full((4, 5, 3), percent, np.uint8) for name, percent in sure.items() if not output.has(name)}
        made = [SimpleNamespace(name=name, read=lambda image=image: image) for name, image in images.items()]
        assert [*label_all(Unsure(), made, output, options, outcome)] == [*images]
        with (tmp_path / "out" / "review.csv").open(newline="") as file:
            return [(row["image"], round(float(row["doubt"]), 6)) for row in csv.DictReader(file)], [*images]

    assert call(a=90, b=60) == ([("b", 0.4), ("a", 0.1)], ["a", "b"])
    assert call(a=90, b=60, c=75) == ([("b", 0.4), ("c", 0.25), ("a", 0.1)], ["c"])  # what is there is not made again
    (tmp_path / "out" / "masks" / "b.png").unlink()
    assert call(a=90, b=99) == ([("c", 0.25), ("a", 0.1), ("b", 0.01)], ["b"])


def test_another_file_or_checkpoint_is_refused(folder, tmp_path):
    assert "made from '" in refusal(folder, "c1", pictures(tmp_path / "B", "a"))
    assert "another checkpoint;" in refusal(folder, "c2", pictures(tmp_path / "A", "a"))


@pytest.mark.parametrize("content", ["[1]", "{", "3", '"x"'])
def test_what_is_no_record_of_ours_is_none(folder, tmp_path, content):
    for name in (SETTINGS_FILE, SOURCES_FILE):
        (folder.folder / name).write_text(content)
    folder.claim("c2", pictures(tmp_path / "A", "a"), overwrite=False)
