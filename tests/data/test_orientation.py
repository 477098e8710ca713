"""Images that are to be turned lie below their labels, whichever way these were drawn, or are refused."""

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import DataError
from fcnlab.data import image_files
from fcnlab.data.image_folder import Folder
from fcnlab.data.orientation import Evidence, orientation_of, stated_size, turned


def stored_from(shown, orientation):
    """Return the pixels that a camera stores for what is to be shown, by the definition of the EXIF tag."""
    return {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.swapaxes(0, 1),
        6: np.rot90(shown), 7: np.rot90(shown, 2).swapaxes(0, 1), 8: np.rot90(shown, -1),
    }[orientation]  # fmt: skip


def save(path, shown, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(np.ascontiguousarray(stored_from(shown, orientation))).save(path, exif=exif, **options)


def scene(height=40, width=56):
    """Return a picture with a bright object, and the label of that object."""
    label = np.zeros((height, width), np.uint8)
    label[4:15, 30:50] = 1
    return np.where(label[..., None] == 1, np.uint8(220), np.uint8(30)) * np.ones(3, np.uint8), label


@pytest.mark.parametrize("ending", [".png", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_is_read_as_viewers_show_it(tmp_path, ending, orientation):
    shown, _ = scene()
    path = tmp_path / f"a{ending}"
    save(path, shown, orientation)
    np.testing.assert_array_equal(image_files.read(path) > 100, shown > 100)  # JPEG changes values
    assert orientation_of(path.read_bytes()) == orientation
    size = stored_from(shown, orientation).shape[:2]
    assert stated_size(path) == (size, orientation)
    np.testing.assert_array_equal(turned(stored_from(shown, orientation), orientation), shown)


def folder_of(root, orientations, drawn_on):
    """Make a data set whose labels are drawn on the shown or on the stored pixels."""
    for name in ("images", "labels"):
        (root / name).mkdir()
    for number, orientation in enumerate(orientations):
        shown, label = scene()
        save(root / "images" / f"{number}.png", shown, orientation)
        drawn = label if drawn_on == "shown" else stored_from(label, orientation)
        cv2.imwrite(str(root / "labels" / f"{number}.png"), np.ascontiguousarray(drawn))
    return root


def samples(root, turned):
    splits = [Folder(FolderConfig(root=str(root), turned=turned), split) for split in ("train", "val")]
    return [split[index] for split in splits for index in range(len(split))]


def fits(sample):
    return ((sample.image[..., 0] > 100) == (sample.label == 1)).all()


@pytest.mark.parametrize("orientations", [(1, 6, 8), (3, 6), (2, 3, 4), (5, 7, 1)])
def test_labels_that_were_drawn_on_what_is_shown(tmp_path, orientations):
    root = folder_of(tmp_path, orientations, "shown")
    assert all(map(fits, samples(root, None)))
    assert all(map(fits, samples(root, True)))


@pytest.mark.parametrize("orientations", [(1, 6, 8), (5, 7, 1)])
def test_labels_that_were_drawn_on_stored_pixels_and_fit_these_alone(tmp_path, orientations):
    root = folder_of(tmp_path, orientations, "stored")
    assert all(map(fits, samples(root, None)))
    assert all(map(fits, samples(root, False)))
    with pytest.raises(DataError, match="a label must have its image's size"):
        samples(root, True)


def test_a_label_that_fits_both_ways_beside_one_that_fits_the_stored_pixels_alone_is_refused(tmp_path):
    root = folder_of(tmp_path, (3, 6), "stored")
    with pytest.raises(DataError, match=r"dataset\.turned=false"):
        samples(root, None)
    assert all(map(fits, samples(root, False)))


def test_a_line_says_that_it_cannot_be_told(tmp_path, caplog):
    samples(folder_of(tmp_path, (3, 1), "shown"), None)
    assert [record.getMessage().count("dataset.turned=false") for record in caplog.records] == [1]


def test_what_is_turned_has_another_fingerprint_and_what_is_not_keeps_its_own(tmp_path):
    for name in ("turned", "plain"):
        (tmp_path / name).mkdir()
    turned = folder_of(tmp_path / "turned", (6, 6), "shown")
    plain = folder_of(tmp_path / "plain", (1, 1), "shown")
    prints = {
        (root.name, how): Folder(FolderConfig(root=str(root), turned=how), "train").fingerprint()
        for root in (turned, plain)
        for how in (None, False)
    }
    assert prints["turned", None] != prints["turned", False]
    assert prints["plain", None] == prints["plain", False]


def test_evidence():
    found = Evidence()
    found.add("a", (40, 56), 1, (1, 1))
    assert found.decide("turned") is None
    found.add("b", (40, 56), 6, (56, 40))
    assert found.decide("turned") is True
    found.add("c", (40, 56), 6, (40, 56))
    assert found.decide("turned") is None  # each by its own size
    found.add("d", (40, 56), 3, None)
    with pytest.raises(DataError, match="turned=false"):
        found.decide("turned")
