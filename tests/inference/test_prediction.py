"""A folder of predictions knows what each of them was made from, whatever was interrupted."""

import re
from types import SimpleNamespace

import pytest

from fcnlab.core.errors import ConfigError
from fcnlab.inference.prediction import SETTINGS_FILE, SOURCES_FILE, OutputFolder, PredictionOptions


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


def test_another_file_or_checkpoint_is_refused(folder, tmp_path):
    assert "made from '" in refusal(folder, "c1", pictures(tmp_path / "B", "a"))
    assert "another checkpoint;" in refusal(folder, "c2", pictures(tmp_path / "A", "a"))


@pytest.mark.parametrize("content", ["[1]", "{", "3", '"x"'])
def test_what_is_no_record_of_ours_is_none(folder, tmp_path, content):
    for name in (SETTINGS_FILE, SOURCES_FILE):
        (folder.folder / name).write_text(content)
    folder.claim("c2", pictures(tmp_path / "A", "a"), overwrite=False)
